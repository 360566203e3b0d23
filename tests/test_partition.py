"""Masks, labels and groups, by tree, function and path. Frozen leaves stay, and hidden leaves are not seen."""

import dataclasses
import pickle
from typing import Any

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.masks.masks import MaskKind, mask_leaves
from gradtx.masks.paths import leaf_names

PARAMS = {
    "embed": jnp.ones((5, 4)),
    "layers": [{"bias": jnp.zeros(3), "kernel": jnp.ones((4, 3))}, {"bias": jnp.zeros(3), "kernel": jnp.ones((3, 3))}],
    "norm": {"scale": jnp.ones(4)},
}
NAMES = ["embed", "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel", "norm/scale"]


def grads(seed: int) -> Any:
    leaves, treedef = jax.tree.flatten(PARAMS)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in leaves])


def run(tx: Any, steps: int = 25, params: Any = PARAMS) -> tuple[Any, Any]:
    state = tx.init(params)

    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(gradtx.tree.cast_like(g, params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    for seed in range(steps):
        params, state = step(params, state, grads(seed))
    return params, state


def assert_like_optax(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Two steps of optax in double precision, because its 1 − β₂ᵗ loses five digits in float32. It needs promotion."""
    with helpers.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), PARAMS)
        (a, state), (b, expected) = run(ours, params=params), run(theirs, params=params)
        chex.assert_trees_all_close(a, b, rtol=1e-12, atol=1e-12)
    return state, expected


def chosen(mask: Any, params: Any = PARAMS) -> list[str]:
    verdicts = mask_leaves("test", MaskKind().convert("test", mask), params)
    return [name for name, on in zip(leaf_names(params), verdicts, strict=True) if on]


# Masks.


class TestMasks:
    def test_names_of_leaves(self):
        assert leaf_names(PARAMS) == NAMES
        assert leaf_names(jnp.ones(2)) == [""]

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (None, NAMES),
            (True, NAMES),
            (False, []),
            ("bias", ["layers/0/bias", "layers/1/bias"]),
            ("!bias|scale", ["embed", "layers/0/kernel", "layers/1/kernel"]),
            ("^layers/1/", ["layers/1/bias", "layers/1/kernel"]),
            ({"embed": True, "layers": False, "norm": True}, ["embed", "norm/scale"]),
            (lambda params: {"embed": True, "layers": [False, True], "norm": False}, [NAMES[0], *NAMES[3:5]]),
            (lambda params: "bias", ["layers/0/bias", "layers/1/bias"]),
            (gradtx.weights_only(), ["embed", "layers/0/kernel", "layers/1/kernel"]),
            (gradtx.weights_only(exclude="embed"), ["layers/0/kernel", "layers/1/kernel"]),
        ],
    )
    def test_chosen(self, mask, expected):
        assert chosen(mask) == expected

    @pytest.mark.parametrize("pattern", ["biass", "!biass"])
    @pytest.mark.parametrize(
        "make",
        [
            lambda mask: gradtx.adamw(1e-3, mask=mask),
            lambda mask: gradtx.adamw(1e-3, mask=lambda params: mask),
            lambda mask: gradtx.chain(gradtx.sgd(1e-3), gradtx.decay_weights(1e-3, mask)),
            lambda mask: gradtx.adan(1e-3, weight_decay=0.1, mask=mask),
            lambda mask: gradtx.masked(gradtx.scale(1.0), mask),
            lambda mask: gradtx.muon(1e-3, weight_decay_mask=mask),
        ],
    )
    def test_a_pattern_without_a_match_is_refused_by_init(self, make, pattern):
        with pytest.raises(ValueError, match=r"biass' matches no path; the paths are 'embed', 'layers/0/bias'"):
            make(pattern).init(PARAMS)

    def test_a_mask_of_another_shape_is_refused_by_init(self):
        with pytest.raises(ValueError, match=r"add_decayed_weights: mask: missing \['norm'\]"):
            gradtx.adamw(1e-3, mask={"embed": True, "layers": False}).init(PARAMS)

    def test_init_without_parameters(self):
        for mask in ("bias", {"embed": True}):
            for params in (None, {}):
                assert gradtx.add_decayed_weights(0.1, mask).init(params) == gradtx.EmptyState()

    def test_a_pattern_that_is_none(self):
        with pytest.raises(ValueError, match=r"adamw: mask: '\(' is no regular expression"):
            gradtx.adamw(1e-3, mask="(")

    def test_no_leaves_no_complaint(self):
        tx = gradtx.masked(gradtx.sgd(0.1), "bias")
        assert tx.update({}, tx.init({}), {})[0] == {}

    def test_the_path_that_differs_is_named(self):
        mask = {"embed": True, "layers": [True, {"bias": True}], "norm": True}
        with pytest.raises(ValueError, match=r"mask\['layers'\]\[1\]: missing \['kernel'\]"):
            gradtx.masked(gradtx.sgd(0.1), mask).init(PARAMS)

    def test_values(self):
        for tx in (
            gradtx.adamw(1e-3, mask="!bias"),
            gradtx.adamw(1e-3, mask=gradtx.weights_only(stacked="layers")),
            gradtx.partition(
                {"a": gradtx.sgd(0.1), "b": gradtx.adam(0.1)}, gradtx.label_by_path({"x": "a"}, otherwise="b")
            ),
            gradtx.param_groups(gradtx.adamw(1e-3), {"z": {"weight_decay": 0}, "a": {"b1": 0.5}}),
            gradtx.freeze("embed"),
            gradtx.trainable(gradtx.sgd(0.1), "embed"),
            gradtx.selective_transform(gradtx.sgd(0.1), "embed"),
        ):
            assert pickle.loads(pickle.dumps(tx)) == tx
            assert gradtx.from_config(gradtx.to_config(tx)) == tx
            assert eval(repr(tx), vars(gradtx).copy()) == tx
            assert hash(eval(repr(tx), vars(gradtx).copy())) == hash(tx)

    def test_a_module_of_bools_is_not_called(self):
        @jax.tree_util.register_dataclass
        @dataclasses.dataclass
        class Module:
            weight: Any
            bias: Any

            def __call__(self, x):
                return self.weight @ x

        tx = gradtx.masked(gradtx.scale(2.0), Module(True, False))
        params = Module(jnp.ones(2), jnp.ones(2))
        updates, _ = tx.update(params, tx.init(params), params)
        chex.assert_trees_all_equal(updates, Module(2 * jnp.ones(2), jnp.ones(2)))
        tx = gradtx.partition({"w": gradtx.scale(2.0), "b": gradtx.scale(3.0)}, Module("w", "b"))
        chex.assert_trees_all_equal(
            tx.update(params, tx.init(params), params)[0], Module(jnp.full(2, 2.0), jnp.full(2, 3.0))
        )


STACKED = {
    "blocks": {
        "LayerNorm_0": {"scale": jnp.ones((12, 8)), "offset": jnp.ones((12, 8))},
        "attention": {"bias": jnp.ones((12, 8)), "kernel": jnp.ones((12, 8, 8)), "tau": jnp.ones((12,))},
        "ln_1": {"w": jnp.ones((12, 8))},
        "mixing": jnp.ones((12, 8)),
    },
    "wte": {"embedding": jnp.ones((9, 8))},
}


class TestWeightsOnly:
    def test_stacked_biases_and_norms_are_known_by_name(self):
        expected = ["blocks/attention/kernel", "blocks/mixing", "wte/embedding"]
        assert chosen(gradtx.weights_only(), STACKED) == expected

    def test_stacked_layers_by_path(self):
        mask = gradtx.weights_only("^blocks")
        assert chosen(mask, STACKED) == ["blocks/attention/kernel", "wte/embedding"]

    def test_by_axes_only(self):
        mask = gradtx.weights_only("^blocks", by_name=False)
        assert chosen(mask, STACKED) == ["blocks/attention/kernel", "wte/embedding"]
        assert chosen(gradtx.weights_only(1, by_name=False), STACKED) == ["blocks/attention/kernel"]

    @pytest.mark.parametrize("mask", [gradtx.weights_only("blcks"), gradtx.weights_only(exclude="embd")])
    def test_its_patterns_must_match(self, mask):
        with pytest.raises(ValueError, match="matches no path"):
            chosen(mask, STACKED)

    def test_names_that_only_look_alike(self):
        params = {"normal_head": jnp.ones((2, 2)), "lnx": jnp.ones((2, 2)), "debias": jnp.ones((2, 2))}
        assert chosen(gradtx.weights_only(), params) == sorted(params)

    def test_in_optax(self):
        mask = gradtx.weights_only()
        ours = gradtx.adamw(1e-2, weight_decay=0.1, mask=mask)
        assert_like_optax(ours, optax.adamw(1e-2, weight_decay=0.1, mask=lambda params: mask(params)))


# Nodes that check or change what they are made of.


@jax.tree_util.register_pytree_with_keys_class
class Strict:
    """Refuses children that are not arrays."""

    def __init__(self, w: Any, b: Any) -> None:
        if not all(hasattr(child, "dtype") for child in (w, b)):
            raise TypeError(f"not arrays: {w}, {b}")
        self.w, self.b = w, b

    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey(key), getattr(self, key)) for key in ("w", "b")], None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Strict":
        return cls(*children)


@jax.tree_util.register_pytree_with_keys_class
class Converting(Strict):
    """Makes an array of whatever it is given."""

    def __init__(self, w: Any, b: Any) -> None:
        super().__init__(*(x if hasattr(x, "dtype") else jnp.asarray(x, jnp.float32) for x in (w, b)))


@pytest.mark.parametrize("node", [Strict, Converting])
class TestNodesThatCheckTheirChildren:
    def params(self, node: Any) -> Any:
        return {"a": node(jnp.ones(2), jnp.ones(3)), "c": jnp.ones(4)}

    def test_masked_by_pattern(self, node):
        params = self.params(node)
        tx = gradtx.masked(gradtx.scale(2.0), "a/w")
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        chex.assert_trees_all_equal(updates, {"a": node(jnp.full(2, 2.0), jnp.ones(3)), "c": jnp.ones(4)})

    def test_partition_and_groups(self, node):
        params = self.params(node)
        labels = gradtx.label_by_path({"w$": "x"}, otherwise="y")
        for tx in (
            gradtx.partition({"x": gradtx.sgd(1.0, 0.9), "y": gradtx.sgd(2.0, 0.9)}, labels),
            gradtx.param_groups(gradtx.sgd(2.0, 0.9), {"w$": {"learning_rate": 1.0}}),
        ):
            state = tx.init(params)
            for k in (1, 1.9):
                updates, state = tx.update(params, state, params)
                chex.assert_trees_all_close(
                    updates, {"a": node(jnp.full(2, -k), jnp.full(3, -2 * k)), "c": jnp.full(4, -2 * k)}, rtol=1e-6
                )

    def test_a_pattern_inside_sees_the_same_paths(self, node):
        params = self.params(node)
        tx = gradtx.trainable(gradtx.chain(gradtx.add_decayed_weights(1.0, "a/b"), gradtx.scale(1.0)), "a/b")
        updates, _ = tx.update(params, tx.init(params), params)
        chex.assert_trees_all_equal(updates, {"a": node(jnp.zeros(2), jnp.full(3, 2.0)), "c": jnp.zeros(4)})


def test_other_trees_keep_their_nodes():
    state = gradtx.masked(gradtx.scale_by_adam(), "bias").init(PARAMS).inner_state
    assert isinstance(state.mu["layers"], list)
    assert state.mu["layers"][0]["kernel"] == gradtx.MaskedNode()
    assert state.mu["layers"][0]["bias"].shape == (3,)


# Nested masks.


def test_a_pattern_may_match_hidden_leaves_only():
    """A group of an optimizer with a mask: the mask's pattern need not match within every group."""
    tx = gradtx.param_groups(gradtx.adamw(1e-2, weight_decay=0.5, mask="!bias|norm"), {"^embed": {"b1": 0.5}})
    nested = gradtx.masked(gradtx.masked(gradtx.scale(2.0), "kernel"), "layers")
    updates, _ = nested.update(PARAMS, nested.init(PARAMS), PARAMS)
    assert float(updates["layers"][0]["kernel"][0, 0]) == 2.0
    assert float(updates["embed"][0, 0]) == 1.0
    with pytest.raises(ValueError, match="'kernle' matches no path; the paths are 'embed'"):
        gradtx.masked(gradtx.masked(gradtx.scale(2.0), "kernle"), "layers").init(PARAMS)
    chex.assert_tree_all_finite(run(tx, 3)[0])


def test_a_tree_inside_a_pattern():
    inner = {"embed": True, "layers": [True, False], "norm": False}
    tx = gradtx.masked(gradtx.masked(gradtx.scale(2.0), inner), "bias")
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS))
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(ones, tx.init(PARAMS), PARAMS)
    doubled = [name for name, x in zip(NAMES, jax.tree.leaves(updates), strict=True) if float(x.max()) == 2.0]
    assert doubled == ["layers/0/bias"]


class with_tags(gradtx.GradientTransformation):
    """Multiplies by an extra argument, of which it takes the first leaves if that has more."""

    def update_fn(self, updates, state, params=None, *, tags):
        first = jax.tree.leaves(tags)[: len(jax.tree.leaves(updates))]
        return jax.tree.map(jnp.multiply, updates, jax.tree.structure(updates).unflatten(first)), state


def test_extra_arguments_like_the_updates_are_hidden_too():
    tx = gradtx.masked(with_tags(), "bias")
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(ones, tx.init(PARAMS), PARAMS, tags=jax.tree.map(lambda x: 3 * x, ones))
    assert [float(x.max()) for x in jax.tree.leaves(updates)] == [1, 3, 1, 3, 1, 1]


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(
    "wrap", [gradtx.masked, lambda tx, mask, **options: gradtx.partition({True: tx}, mask, **options)]
)
def test_extra_arguments_may_be_handed_on_as_they_are(wrap, hidden):
    """As optax does unless told otherwise: then the transformation sees those of all leaves."""
    params, tags = {"a": jnp.ones(1), "b": jnp.ones(1)}, {"a": jnp.full(1, 2.0), "b": jnp.full(1, 3.0)}
    inner = wrap(with_tags(), True, mask_compatible_extra_args=hidden)
    tx = gradtx.masked(inner, "b", mask_compatible_extra_args=hidden)
    updates, _ = tx.update(params, tx.init(params), tags=tags)
    assert updates["b"] == (3 if hidden else 2)


# Partition.


LABELS = {"embed": "slow", "layers": "fast", "norm": "slow"}


class TestPartition:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ((gradtx.adam(0.1), gradtx.sgd(0.01, 0.9)), (optax.adam(0.1), optax.sgd(0.01, 0.9))),
            ((gradtx.adamw(0.1), gradtx.set_to_zero()), (optax.adamw(0.1), optax.set_to_zero())),
            ((optax.rmsprop(0.1), gradtx.lion(0.01)), (optax.rmsprop(0.1), optax.lion(0.01))),
        ],
    )
    @pytest.mark.parametrize(
        "labels", [LABELS, lambda params: LABELS, gradtx.label_by_path({"layers": "fast"}, otherwise="slow")]
    )
    def test_like_optax(self, ours, theirs, labels):
        ours, theirs = (dict(zip(("fast", "slow"), each, strict=True)) for each in (ours, theirs))
        state, expected = assert_like_optax(gradtx.partition(ours, labels), optax.partition(theirs, LABELS))
        assert type(state).__name__ == type(expected).__name__
        assert state.inner_states.keys() == expected.inner_states.keys()
        assert type(state.inner_states["fast"]).__name__ == "MaskedState"

    def test_each_label_has_its_own_state_only(self):
        tx = gradtx.partition({"fast": gradtx.scale_by_adam(), "slow": gradtx.identity()}, LABELS)
        state = tx.init(PARAMS)
        assert jax.tree.leaves(state.inner_states["slow"]) == []
        assert [x.shape for x in jax.tree.leaves(state.inner_states["fast"].inner_state.mu)] == [
            (3,),
            (4, 3),
            (3,),
            (3, 3),
        ]

    def test_unknown_and_unused_are_both_named(self):
        tx = gradtx.partition({"fst": gradtx.sgd(0.1), "slow": gradtx.sgd(0.1)}, LABELS)
        with pytest.raises(ValueError, match="no transformation for the label 'fast'; no leaf has the label 'fst'"):
            tx.init(PARAMS)
        tx = gradtx.partition({"fast": gradtx.sgd(0.1), "slow": gradtx.sgd(0.1), "no": gradtx.sgd(0.1)}, LABELS)
        with pytest.raises(ValueError, match="partition: no leaf has the label 'no'"):
            tx.init(PARAMS)

    def test_an_unused_transformation_may_be_allowed(self):
        """Its state has no leaves, and counts steps. A label without a transformation is still an error."""
        transforms = {"fast": gradtx.sgd(0.1), "slow": gradtx.sgd(0.2), "no": gradtx.adam(0.3)}
        tx = gradtx.partition(transforms, LABELS, allow_unused=True)
        state = tx.init(PARAMS)
        assert jax.tree.leaves(state.inner_states["no"].inner_state[0].mu) == []
        updates, state = tx.update(PARAMS, state, PARAMS)
        expected = gradtx.partition({name: transforms[name] for name in ("fast", "slow")}, LABELS)
        chex.assert_trees_all_equal(updates, expected.update(PARAMS, expected.init(PARAMS), PARAMS)[0])
        assert int(state.inner_states["no"].inner_state[0].count) == 1
        assert eval(repr(tx), vars(gradtx).copy()) == tx == gradtx.from_config(gradtx.to_config(tx)) != expected
        with pytest.raises(ValueError, match="no transformation for the label 'slow'; the labels of the leaves are"):
            gradtx.partition({"fast": gradtx.sgd(0.1)}, LABELS, allow_unused=True).init(PARAMS)

    def test_state_of_other_groups(self):
        tx = gradtx.partition({"fast": gradtx.sgd(0.1), "slow": gradtx.sgd(0.1)}, LABELS)
        state = gradtx.PartitionState({"fast": gradtx.MaskedState(())})
        with pytest.raises(ValueError, match="expected a state for 'fast', 'slow', got one for 'fast'"):
            tx.update(PARAMS, state, PARAMS)

    @pytest.mark.parametrize("labels", [{"embed": 1.5}, {"embed": jnp.ones(())}, None, {"embed": print}])
    def test_labels_that_are_none(self, labels):
        if labels == {"embed": 1.5}:
            labels = {"embed": np.ones(2)}
        with pytest.raises((TypeError, ValueError), match="partition: param_labels"):
            gradtx.partition({"a": gradtx.sgd(0.1)}, labels).init({"embed": jnp.ones(2)})

    def test_transformations_that_are_none(self):
        with pytest.raises(TypeError, match=r"partition: transforms\['a'\] is the class sgd: call it"):
            gradtx.partition({"a": gradtx.sgd}, "a")
        with pytest.raises(TypeError, match="partition: transforms must be a dict"):
            gradtx.partition({}, "a")

    def test_integer_leaves_may_be_frozen(self):
        params = {"step": jnp.array(3), "w": jnp.ones(2)}
        tx = gradtx.partition(
            {"on": gradtx.sgd(0.1), "off": gradtx.set_to_zero()}, gradtx.label_by_path({"w": "on"}, otherwise="off")
        )

        @jax.jit
        def step(params, state):
            grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
            updates, state = tx.update(grads, state, params)
            return gradtx.apply_updates(params, updates), state

        params, _ = step(params, tx.init(params))
        assert int(params["step"]) == 3
        np.testing.assert_allclose(params["w"], 0.8, rtol=1e-6)

    def test_multi_transform(self):
        assert gradtx.multi_transform is gradtx.partition

    def test_empty_tree(self):
        tx = gradtx.partition({"fast": gradtx.adam(0.1)}, LABELS)
        assert gradtx.partition({"all": gradtx.adam(0.1)}, {}).init({}).inner_states.keys() == {"all"}
        with pytest.raises(ValueError, match="param_labels"):
            tx.init({})


class TestLabels:
    def test_a_leaf_without_a_label(self):
        tx = gradtx.partition({"a": gradtx.sgd(0.1)}, gradtx.label_by_path({"layers": "a"}))
        with pytest.raises(ValueError, match="no pattern matches 'embed', 'norm/scale'; give them a label: otherwise="):
            tx.init(PARAMS)

    def test_the_first_match_wins_and_the_order_is_part_of_the_value(self):
        ab = gradtx.label_by_path({"kernel": "a", "layers": "b"}, otherwise="c")
        ba = gradtx.label_by_path({"layers/0": "b", "kernel": "a"}, otherwise="c")
        assert jax.tree.leaves(ab(PARAMS)) == ["c", "b", "a", "b", "a", "c"]
        assert jax.tree.leaves(ba(PARAMS)) == ["c", "b", "b", "c", "a", "c"]
        x, y = {"a": {"b1": 0.5}, "b": {"b1": 0.6}}, {"b": {"b1": 0.6}, "a": {"b1": 0.5}}
        assert gradtx.param_groups(gradtx.adam(0.1), x) != gradtx.param_groups(gradtx.adam(0.1), y)

    def test_a_pattern_that_is_never_first(self):
        rule = gradtx.label_by_path({"layers": "b", "kernel": "a"}, otherwise="c")
        with pytest.raises(
            ValueError, match="'kernel' is never the first to match: earlier ones take all of its leaves"
        ):
            rule(PARAMS)


@pytest.mark.parametrize(
    "mask",
    [
        "bias",
        {"embed": False, "layers": [{"bias": True, "kernel": False}] * 2, "norm": False},
        lambda params: "bias",
        gradtx.weights_only(),
        None,
    ],
)
def test_labels_from_a_mask(mask):
    """The same leaves as the mask itself, whatever kind of mask it is."""
    labels = gradtx.label_by_mask(mask, "in", "out")(PARAMS)
    inside = [name for name, label in zip(NAMES, jax.tree.leaves(labels), strict=True) if label == "in"]
    assert inside == chosen(mask)


def test_a_mask_s_labels_count_hidden_leaves():
    """A group of the inner partition may have all of its leaves hidden by the outer mask."""
    labels = gradtx.label_by_mask("bias", "b", "k")
    inner = gradtx.partition({"b": gradtx.scale(2.0), "k": gradtx.scale(3.0)}, labels)
    tx = gradtx.masked(inner, "kernel")
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(ones, tx.init(PARAMS), PARAMS)
    assert [float(x.max()) for x in jax.tree.leaves(updates)] == [1, 1, 3, 1, 3, 1]


def test_labels_of_a_mask_that_does_not_fit():
    tx = gradtx.partition({"b": gradtx.sgd(1.0), "k": gradtx.sgd(1.0)}, gradtx.label_by_mask("biass", "b", "k"))
    with pytest.raises(ValueError, match="partition: param_labels: mask: the pattern 'biass' matches no path"):
        tx.init(PARAMS)
    with pytest.raises(TypeError, match="label_by_mask: inside must be a label"):
        gradtx.label_by_mask("bias", None, "k")


def test_a_rule_that_gives_labels_is_no_mask():
    """Any string would count as true."""
    with pytest.raises(TypeError, match="masked: mask: expected True or False for each leaf, got 'on' of"):
        gradtx.masked(gradtx.sgd(0.1), gradtx.label_by_path({"bias": "on"}, otherwise="on")).init(PARAMS)


# Groups.


class TestParamGroups:
    def test_like_partition(self):
        """Two groups of AdamW, as in torch: the golden case adamw_groups is the same recipe by other means."""
        base, other = gradtx.adamw(0.01, weight_decay=0.0), {"learning_rate": 0.003, "weight_decay": 0.2}
        ours, state = run(gradtx.param_groups(base, {"kernel": other}))
        labels = gradtx.label_by_path({"kernel": "other"}, otherwise="base")
        chex.assert_trees_all_equal(
            ours, run(gradtx.partition({"base": base, "other": gradtx.adamw(**other)}, labels))[0]
        )
        assert state.inner_states.keys() == {"rest", "kernel"}

    def test_names(self):
        groups = {
            "(?i)BIAS|scale$": {"learning_rate": 0.2},
            "^layers/0/": ("first", {"learning_rate": 0.3}),
            r"layers/\d+/": {"learning_rate": 0.4},
        }
        tx = gradtx.param_groups(gradtx.inject_hyperparams(gradtx.sgd(0.1)), {})
        assert tx.init(PARAMS).inner_states.keys() == {"rest"}
        tx = gradtx.param_groups(gradtx.sgd(0.1), groups)
        assert tx.init(PARAMS).inner_states.keys() == {"BIAS_scale", "first", "layers", "rest"}
        rates = {name: float(x) for name, x in gradtx.metrics(tx.init(PARAMS)).items() if "learning_rate" in name}
        assert rates == pytest.approx(
            {
                "BIAS_scale/learning_rate": 0.2,
                "first/learning_rate": 0.3,
                "layers/learning_rate": 0.4,
                "rest/learning_rate": 0.1,
            }
        )
        assert gradtx.tree.get(tx.init(PARAMS), "first.learning_rate") == pytest.approx(0.3)
        assert pickle.loads(pickle.dumps(tx)) == tx == gradtx.from_config(gradtx.to_config(tx))
        assert eval(repr(tx), vars(gradtx).copy()) == tx

    def test_a_named_group_may_be_another_transformation(self):
        tx = gradtx.param_groups(gradtx.sgd(0.1), {"embed": ("slow", gradtx.inject_hyperparams(gradtx.sgd(0.2)))})
        state = gradtx.set_hyperparams(tx.init(PARAMS), **{"slow.learning_rate": 0.5})
        updates, _ = tx.update(grads(0), state, PARAMS)
        np.testing.assert_allclose(updates["embed"], -0.5 * grads(0)["embed"], rtol=1e-6)

    def test_names_that_are_taken(self):
        tx = gradtx.param_groups(
            gradtx.sgd(0.1), {"^rest|norm": {}, "0/bias": {}, "bias|norm": {}, "bias": ("bias_norm", {})}
        )
        assert list(tx.transforms) == ["rest", "rest_norm", "0/bias", "bias_norm_2", "bias_norm"]
        with pytest.raises(ValueError, match="groups: the name 'a' is given twice"):
            gradtx.param_groups(gradtx.sgd(0.1), {"x": ("a", {}), "y": ("a", {})})
        with pytest.raises(ValueError, match=r"groups\['x'\]: the name 'rest' may not be given; 'rest' is that of"):
            gradtx.param_groups(gradtx.sgd(0.1), {"x": ("rest", {})})

    def test_first_match_wins(self):
        tx = gradtx.param_groups(
            gradtx.sgd(1.0), {"/0/": {"learning_rate": 0.5}, "bias": {"learning_rate": 0.25}, "embed": gradtx.sgd(2.0)}
        )
        ones = jax.tree.map(jnp.ones_like, PARAMS)
        updates, _ = tx.update(ones, tx.init(PARAMS), PARAMS)
        assert [float(x.max()) for x in jax.tree.leaves(updates)] == [-2, -0.5, -0.5, -0.25, -1, -1]

    def test_no_leaf_left_for_the_base(self):
        tx = gradtx.param_groups(gradtx.adam(1.0), {"": {"learning_rate": 0.5}})
        chex.assert_trees_all_equal(run(tx)[0], run(gradtx.adam(0.5))[0])

    def test_errors(self):
        with pytest.raises(TypeError, match=r"param_groups: groups\['bias'\]: adamw: no hyper-parameter lr; "):
            gradtx.param_groups(gradtx.adamw(1e-3), {"bias": {"lr": 0.1}})
        with pytest.raises(ValueError, match=r"groups\['bias'\]: adamw: weight_decay must lie in \[0, ∞\), got -1"):
            gradtx.param_groups(gradtx.adamw(1e-3), {"bias": {"weight_decay": -1}})
        with pytest.raises(TypeError, match=r"groups\['bias'\] must be a dict of hyper-parameters or a transformation"):
            gradtx.param_groups(gradtx.adamw(1e-3), {"bias": 0.1})
        with pytest.raises(TypeError, match="only a gradtx transformation has hyper-parameters"):
            gradtx.param_groups(optax.adamw(1e-3), {"bias": {"b1": 0.1}})
        tx = gradtx.param_groups(gradtx.adamw(1e-3), {"biass": {"b1": 0.1}})
        with pytest.raises(ValueError, match=r"groups: the pattern 'biass' matches no path; the paths are 'embed'"):
            tx.init(PARAMS)

    def test_schedules_and_arrays(self):
        schedule = gradtx.linear_schedule(1.0, 0.0, 2)

        @jax.jit
        def rates(decay):
            tx = gradtx.param_groups(gradtx.sgd(decay), {"embed": {"learning_rate": schedule}})
            ones = jax.tree.map(jnp.ones_like, PARAMS)
            state = tx.init(PARAMS)
            first, state = tx.update(ones, state, PARAMS)
            second, _ = tx.update(ones, state, PARAMS)
            return first["embed"][0, 0], second["embed"][0, 0], second["norm"]["scale"][0]

        np.testing.assert_allclose(rates(jnp.float32(0.25)), [-1.0, -0.5, -0.25])

    def test_clipping_outside_sees_all(self):
        tx = gradtx.chain(
            gradtx.clip_by_global_norm(1.0), gradtx.param_groups(gradtx.sgd(1.0), {"bias": {"learning_rate": 1.0}})
        )
        updates, _ = tx.update(grads(0), tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(gradtx.tree.norm(updates), 1.0, rtol=1e-6)


# Frozen leaves.


FROZEN = {"embed": True, "layers": [True, False], "norm": False}


class TestFreeze:
    def test_freeze_like_optax(self):
        ours = gradtx.chain(gradtx.adam(0.1), gradtx.freeze(FROZEN))
        assert_like_optax(ours, optax.chain(optax.adam(0.1), optax.freeze(FROZEN)))
        chex.assert_trees_all_equal(run(ours)[0]["embed"], PARAMS["embed"])

    def test_selective_transform_like_optax(self):
        theirs = optax.selective_transform(optax.adam(0.1), freeze_mask=FROZEN)
        state, _ = assert_like_optax(gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=FROZEN), theirs)
        assert gradtx.tree.size(gradtx.tree.get(state, "mu")) == 3 + 9 + 4

    def test_trainable_is_its_opposite(self):
        a, _ = run(gradtx.trainable(gradtx.adam(0.1), "!embed|^layers/0"))
        b, _ = run(gradtx.selective_transform(gradtx.adam(0.1), "embed|^layers/0"))
        chex.assert_trees_all_equal(a, b)

    def test_bare_bools(self):
        chex.assert_trees_all_equal(run(gradtx.chain(gradtx.adam(0.1), gradtx.freeze(True)), 2)[0], PARAMS)
        chex.assert_trees_all_equal(
            run(gradtx.chain(gradtx.adam(0.1), gradtx.freeze(False)), 2)[0], run(gradtx.adam(0.1), 2)[0]
        )

    @pytest.mark.parametrize(
        "tx",
        [
            gradtx.freeze("embed"),
            gradtx.trainable(gradtx.sgd(0.1), "!embed"),
            gradtx.selective_transform(gradtx.sgd(0.1), "embed"),
        ],
    )
    def test_nan_and_integers(self, tx):
        params = {"embed": jnp.ones(2), "embeddings": jnp.array([3, 4]), "w": jnp.ones(2)}
        updates = {"embed": jnp.full(2, jnp.nan), "embeddings": np.zeros((2,), jax.dtypes.float0), "w": jnp.ones(2)}
        new, state = tx.update(updates, tx.init(params), params)
        np.testing.assert_array_equal(new["embed"], 0)
        assert new["embeddings"].dtype == jax.dtypes.float0
        assert float(new["w"][0]) != 0
        after = gradtx.apply_updates(params, new)
        np.testing.assert_array_equal(after["embeddings"], [3, 4])
        if not isinstance(tx, gradtx.freeze):
            assert not [x for x in jax.tree.leaves(state) if jnp.shape(x)]

    @pytest.mark.parametrize("make", [gradtx.freeze, lambda m: gradtx.trainable(gradtx.sgd(0.1), m)])
    def test_a_pattern_that_matches_nothing(self, make):
        with pytest.raises(ValueError, match="mask: the pattern 'embedd' matches no path; the paths are 'embed'"):
            make("embedd").init(PARAMS)

    def test_dtypes_stay(self):
        params = {"embed": jnp.ones(2, jnp.bfloat16), "w": jnp.ones(2, jnp.bfloat16)}
        tx = gradtx.trainable(gradtx.adam(0.1), "w")
        updates, _ = tx.update(params, tx.init(params), params)
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def test_masked_passes_others_through():
    tx = gradtx.masked(gradtx.sgd(0.1), "bias")
    a, _ = run(gradtx.chain(tx, gradtx.masked(gradtx.sgd(0.5), "!bias")))
    b, _ = run(gradtx.param_groups(gradtx.sgd(0.5), {"bias": {"learning_rate": 0.1}}))
    chex.assert_trees_all_equal(a, b)
    updates, _ = tx.update(grads(0), tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates["embed"], grads(0)["embed"])
