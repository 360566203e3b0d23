"""Fields of states by name and path, what a loop logs, and arithmetic on trees."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from helpers import of_todays_nnx

import gradtx
from gradtx import tree

PARAMS = {"mu": jnp.ones((4, 3)), "count": jnp.ones(2)}  # named like fields of states
ADAM = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))


def paths(state: Any, key: str) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in tree.get_all_with_path(state, key)]


# Reading.


class TestGet:
    def test_parameters_are_not_taken_for_fields(self):
        state = ADAM.init(PARAMS)
        assert paths(state, "mu") == ["[1][0].mu"]
        assert tree.get(state, "mu").keys() == {"mu", "count"}
        assert paths(state, "count") == ["[1][0].count", "[1][1].count"]

    def test_namedtuple_parameters(self):
        class Net(NamedTuple):
            nu: Any
            trace: Any

        state = ADAM.init(Net(jnp.ones(2), jnp.ones(3)))
        assert paths(state, "nu") == ["[1][0].nu"]
        with pytest.raises(KeyError, match="no field 'trace'"):
            tree.get(state, "trace")

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("ScaleByAdamState.count", "[1][0].count"),
            ("1.0.count", "[1][0].count"),
            ("0.grad_norm", "[0].grad_norm"),
            ("ClipByGlobalNormState", "[0]"),
        ],
    )
    def test_paths(self, key, path):
        assert paths(ADAM.init(PARAMS), key) == [path]

    def test_names_and_labels(self):
        groups = {"a": gradtx.adam(0.1), "b": gradtx.sgd(0.2)}
        tx = gradtx.named_chain(
            ("clip", gradtx.clip_by_global_norm(1.0)),
            ("step", gradtx.partition(groups, {"mu": "a", "count": "b"})),
            ("again", gradtx.clip_by_global_norm(2.0)),
        )
        state = tx.init(PARAMS)
        np.testing.assert_allclose(tree.get(state, "a.learning_rate"), 0.1)
        np.testing.assert_allclose(tree.get(state, "step.b.learning_rate"), 0.2)
        assert tree.get(state, "clip.clipped") is state["clip"].clipped
        with pytest.raises(KeyError, match=r"'grad_norm' names 2 fields: 'clip.grad_norm' .*, 'again.grad_norm' "):
            tree.get(state, "grad_norm")
        assert tree.get(state, "mu")["count"] == gradtx.MaskedNode()

    def test_missing(self):
        state = ADAM.init(PARAMS)
        with pytest.raises(
            KeyError, match=r"no field 'momentum' in the state; its fields are clipped, count, grad_norm"
        ):
            tree.get(state, "momentum")
        assert tree.get(state, "momentum", None) is None
        assert tree.get_all_with_path(state, "momentum") == []

    def test_filtering(self):
        state = ADAM.init(PARAMS)
        count = tree.get(state, "count", filtering=lambda path, value: path[0].idx == 1 and path[1].idx == 0)
        assert count is state[1][0].count
        for ask in (tree.get, lambda state, key, filtering: tree.set(state, filtering, **{key: 0})):
            with pytest.raises(KeyError, match=r"no field 'nu' passes the filter; there is '1\.0\.nu'"):
                ask(state, "nu", filtering=lambda path, value: False)

    def test_the_rate_of_everything(self):
        for tx, expected in [
            (gradtx.adam(0.5), 0.5),
            (gradtx.adam(gradtx.constant_schedule(0.5)), 0.5),
            (gradtx.inject_hyperparams(gradtx.adam)(0.5), 0.5),
            (gradtx.inject_hyperparams(gradtx.adam)(gradtx.constant_schedule(0.5)), 0.5),
            (gradtx.accumulate(gradtx.masked(gradtx.adam(0.5), "mu"), 2), 0.5),
        ]:
            assert float(tree.get(tx.init(PARAMS), "learning_rate")) == expected

    def test_states_of_optax(self):
        state = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(0.5)).init(PARAMS)
        assert float(tree.get(state, "learning_rate")) == 0.5
        assert paths(state, "nu") == ["[1].inner_state[0].nu"]


# Replacing.


class TestSet:
    def test_numbers_keep_the_dtype(self):
        state = tree.set(ADAM.init(PARAMS), None, **{"ScaleByAdamState.count": 7, "grad_norm": 2})
        assert int(state[1][0].count) == 7
        assert state[1][0].count.dtype == jnp.int32
        assert state[0].grad_norm.dtype == jnp.float32
        assert not state[0].grad_norm.weak_type
        assert int(state[1][1].count) == 0

    def test_all_of_one_name(self):
        state = tree.set(ADAM.init(PARAMS), count=3)
        assert [int(value) for _, value in tree.get_all_with_path(state, "count")] == [3, 3]

    def test_functions_and_trees(self):
        state = tree.set(ADAM.init(PARAMS), mu=PARAMS, nu=lambda nu: jax.tree.map(lambda x: x + 2, nu))
        assert float(state[1][0].mu["mu"][0, 0]) == 1.0
        assert float(state[1][0].nu["count"][0]) == 2.0

    def test_errors(self):
        state = ADAM.init(PARAMS)
        with pytest.raises(KeyError, match="no field 'momentum'"):
            tree.set(state, momentum=1.0)
        with pytest.raises(ValueError, match=r"1\.0\.mu: missing \['count'\]"):
            tree.set(state, mu={"mu": PARAMS["mu"]})
        with pytest.raises(ValueError, match=r"0\.grad_norm: expected float32\[\] like what it replaces"):
            tree.set(state, grad_norm=jnp.ones(2))
        with pytest.raises(ValueError, match=r"1\.1\.learning_rate only records the rate in use; to set it, inject it"):
            tree.set(state, learning_rate=0.1)
        with pytest.raises(KeyError, match=r"no injected hyper-parameter 'learning_rate', there is none at all"):
            gradtx.set_hyperparams(state, learning_rate=0.1)
        state = gradtx.inject_hyperparams(gradtx.sgd(0.1)).init(PARAMS)
        with pytest.raises(KeyError, match=r"no injected hyper-parameter 'lr', there is 'learning_rate': see"):
            gradtx.set_hyperparams(state, lr=0.1)

    def test_several_optimizers(self):
        inject = gradtx.inject_hyperparams
        tx = gradtx.partition({"a": inject(gradtx.sgd(0.1)), "b": inject(gradtx.adam(0.2))}, {"mu": "a", "count": "b"})
        state = gradtx.set_hyperparams(tx.init(PARAMS), **{"a.learning_rate": 0.5})
        assert gradtx.metrics(state)["a/learning_rate"] == 0.5
        np.testing.assert_allclose(gradtx.metrics(state)["b/learning_rate"], 0.2)
        state = gradtx.set_hyperparams(state, learning_rate=0.25)
        assert gradtx.metrics(state)["a/learning_rate"] == gradtx.metrics(state)["b/learning_rate"] == 0.25
        updates, _ = tx.update(PARAMS, state, PARAMS)
        np.testing.assert_array_equal(updates["mu"], -0.25)

    def test_of_a_loaded_state(self):
        """NumPy arrays in the place of JAX's."""
        state = jax.tree.map(np.asarray, gradtx.inject_hyperparams(gradtx.sgd(0.1)).init(PARAMS))
        assert gradtx.set_hyperparams(state, learning_rate=0.5).hyperparams["learning_rate"].dtype == jnp.float32


# Mapping.


class TestMapParams:
    def test_what_belongs_to_parameters(self):
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.accumulate(gradtx.adam(0.1), 2))
        named = {"mu": "M", "count": "C"}
        state = tree.map_params(tx, lambda leaf, name: name, tx.init(PARAMS), named, transform_non_params=lambda _: "-")
        assert state[0] == ("-", "-")
        assert state[1].acc_grads == state[1].inner_opt_state[0].mu == state[1].inner_opt_state[0].nu == named
        assert state[1].mini_step == state[1].inner_opt_state[0].count == "-"

    def test_factored_moments_come_with_their_parameter(self):
        params = {"a": jnp.ones((4, 3)), "b": jnp.ones(5)}
        tx = gradtx.adafactor(0.1, min_dim_size_to_factor=2)
        seen = []
        tree.map_params(tx, lambda leaf, p: seen.append((leaf.shape, p.shape)) or leaf, tx.init(params), params)
        assert sorted(seen) == sorted(
            [((3,), (4, 3)), ((1,), (5,)), ((4,), (4, 3)), ((1,), (5,)), ((1,), (4, 3)), ((5,), (5,))]
        )

    @pytest.mark.parametrize("params", [jnp.ones(()), jnp.ones(3), [jnp.ones(2)], (jnp.ones(()), jnp.ones(2)), {}])
    def test_bare_leaves_and_scalars(self, params):
        tx = ADAM
        calls = []
        state = tree.map_params(
            tx, lambda leaf, p: calls.append(1) or leaf, tx.init(params), params, transform_non_params=lambda x: None
        )
        assert len(calls) == 2 * len(jax.tree.leaves(params))
        assert state[0] == (None, None)

    def test_without_parameters(self):
        state = tree.map_params(ADAM, lambda leaf: leaf + 1, ADAM.init(PARAMS))
        assert float(state[1][0].mu["mu"][0, 0]) == 1.0
        assert int(state[1][0].count) == 0

    def test_hidden_leaves(self):
        tx = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.1, 0.9)}, {"mu": "a", "count": "b"})
        state = tree.map_params(tx, lambda leaf, name: name, tx.init(PARAMS), {"mu": "M", "count": "C"})
        assert tree.get(state, "mu") == {"mu": "M", "count": gradtx.MaskedNode()}
        assert tree.get(state, "trace") == {"mu": gradtx.MaskedNode(), "count": "C"}

    @pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: gradtx.chain(gradtx.masked(tx, True), ADAM)])
    def test_a_state_that_is_a_dict(self, wrap):
        """What in it is like the parameters is not known until they are given."""
        tx = wrap(
            gradtx.GradientTransformation(lambda params: {"count": 1, "mean": params}, lambda g, s, p=None: (g, s))
        )
        state = tx.init(PARAMS)
        with pytest.raises(
            ValueError, match=r"map_params: the state is a dict.*mean' is like the parameters: give them"
        ):
            tree.map_params(tx, lambda leaf: leaf + 1, state)
        new = tree.map_params(tx, lambda leaf, param: leaf + param, state, PARAMS)
        found = new if isinstance(new, dict) else new[0].inner_state
        chex.assert_trees_all_equal(found, {"count": 1, "mean": jax.tree.map(lambda x: 2 * x, PARAMS)})

    def test_hidden_leaves_if_one_asks_for_them(self):
        is_hidden = lambda x: isinstance(x, gradtx.MaskedNode)  # noqa: E731
        tx = gradtx.masked(gradtx.trace(0.9), {"mu": True, "count": False})
        state = tree.map_params(
            tx,
            lambda leaf, name: None if is_hidden(leaf) else name,
            tx.init(PARAMS),
            {"mu": "M", "count": "C"},
            is_leaf=is_hidden,
        )
        assert tree.get(state, "trace") == {"mu": "M", "count": None}

    def test_shardings(self):
        spec = {"mu": jax.sharding.PartitionSpec("x", None), "count": jax.sharding.PartitionSpec()}
        state = tree.map_params(
            ADAM,
            lambda leaf, p: p,
            ADAM.init(PARAMS),
            spec,
            transform_non_params=lambda _: jax.sharding.PartitionSpec(),
        )
        assert state[1][0].mu == state[1][0].nu == spec
        assert state[0].grad_norm == jax.sharding.PartitionSpec()

    def test_like_optax(self):
        ours, theirs = gradtx.adam(0.1), optax.adam(0.1)

        def add(leaf, p):
            return leaf + p

        a = tree.map_params(ours, add, ours.init(PARAMS), PARAMS)[0]
        b = optax.tree.map_params(theirs, add, theirs.init(PARAMS), PARAMS)[0]
        assert bool(tree.allclose(tuple(a), tuple(b)))

    def test_state_of_another(self):
        with pytest.raises(ValueError, match="map_params: scale_by_adam has a state ScaleByAdamState, got tuple"):
            tree.map_params(gradtx.scale_by_adam(), lambda x: x, ADAM.init(PARAMS))


# Metrics.


class TestMetrics:
    def test_of_a_chain(self):
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.linear_schedule(1.0, 0.0, 4)))
        params, state = PARAMS, tx.init(PARAMS)

        @jax.jit
        def step(params, state):
            updates, state = tx.update(PARAMS, state, params)
            return gradtx.apply_updates(params, updates), state, gradtx.metrics(state)

        for rate in (1.0, 0.75):
            params, state, logged = step(params, state)
            assert float(logged["learning_rate"]) == rate
        assert {name: int(logged[name]) for name in ("steps", "clipped")} == {"steps": 2, "clipped": 2}
        np.testing.assert_allclose(logged["grad_norm"], 14**0.5, rtol=1e-6)
        assert logged.keys() == {"clipped", "grad_norm", "learning_rate", "steps"}

    def test_of_injected(self):
        tx = gradtx.inject_hyperparams(gradtx.adam(0.5))
        _, state = tx.update(PARAMS, tx.init(PARAMS))
        logged = gradtx.metrics(gradtx.set_hyperparams(state, learning_rate=0.25))
        assert float(logged["learning_rate"]) == 0.25
        assert logged.keys() == {"b1", "b2", "eps", "eps_root", "learning_rate", "steps"}

    @pytest.mark.parametrize(
        ("tx", "expected"),
        [
            (gradtx.identity(), set()),
            (gradtx.scale_by_adam(), {"steps"}),
            (gradtx.named_chain(("a", gradtx.sgd(0.1))), {"learning_rate", "steps"}),
            (gradtx.masked(ADAM, "mu"), {"clipped", "grad_norm", "learning_rate", "steps"}),
            (gradtx.accumulate(gradtx.sgd(0.1), 2), {"learning_rate", "steps"}),
            (gradtx.if_finite(gradtx.sgd(0.1)), {"learning_rate", "skipped", "steps"}),
            (gradtx.chain(gradtx.sgd(0.1), gradtx.monitor()), {"learning_rate", "steps", "update_norm"}),
            (
                gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.sgd(0.2)}, {"mu": "a", "count": "b"}),
                {"a/learning_rate", "b/learning_rate", "steps"},
            ),
            (
                gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale(2.0), gradtx.clip_by_global_norm(1.0)),
                {"0/grad_norm", "2/grad_norm", "0/clipped", "2/clipped"},
            ),
            (
                gradtx.param_groups(gradtx.sgd(0.1), {"mu": {"learning_rate": 0.2}}),
                {"rest/learning_rate", "mu/learning_rate", "steps"},
            ),
            (gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 3)), {"learning_rate", "steps"}),
            (gradtx.muon(0.1), {"adam/learning_rate", "muon/learning_rate", "steps"}),
            (
                gradtx.partition(
                    {"long": gradtx.chain(gradtx.scale(1.0), gradtx.scale(1.0), gradtx.sgd(0.1)), "b": gradtx.sgd(0.2)},
                    {"mu": "long", "count": "b"},
                ),
                {"long/learning_rate", "b/learning_rate", "steps"},
            ),
            (
                gradtx.chain(
                    gradtx.clip_by_global_norm(2.0),
                    gradtx.partition({"a": ADAM, "b": gradtx.set_to_zero()}, {"mu": "a", "count": "b"}),
                ),
                {"grad_norm", "clipped", "a/grad_norm", "a/clipped", "learning_rate", "steps"},
            ),
        ],
        ids=lambda x: type(x).__name__,
    )
    def test_names(self, tx, expected):
        state = tx.init(PARAMS)
        assert gradtx.metrics(state).keys() == expected
        _, state = tx.update(PARAMS, state, PARAMS)
        assert gradtx.metrics(state).keys() == expected

    def test_steps_are_updates_not_gradients(self):
        tx = gradtx.accumulate(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-0.1)), 2)
        state = tx.init(PARAMS)
        for _ in range(5):
            _, state = tx.update(PARAMS, state, PARAMS)
        assert int(gradtx.metrics(state)["steps"]) == 2

    def test_measurements_that_are_trees_or_arrays(self):
        tx = gradtx.monitor({"largest": lambda u: jax.tree.map(jnp.max, u), "all": lambda u: jnp.ones(3)})
        assert gradtx.metrics(tx.init(PARAMS)).keys() == {"largest/mu", "largest/count", "all"}

    @pytest.mark.parametrize("state", [PARAMS, jnp.ones(2), ADAM, {"opt_state": [PARAMS]}])
    def test_what_is_no_state_is_refused(self, state):
        with pytest.raises(ValueError, match=r"metrics: (found no|expected the) state"):
            gradtx.metrics(state)


# States in what other libraries keep them in.


INJECTED = gradtx.chain(
    gradtx.clip_by_global_norm(1.0), gradtx.inject_hyperparams(gradtx.adam(0.5), names="learning_rate")
)
LOGGED = {"clipped", "grad_norm", "learning_rate", "steps"}


class TestOtherLibraries:
    def test_vmapped(self):
        params = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), PARAMS)
        _, state = jax.vmap(INJECTED.update)(params, jax.vmap(INJECTED.init)(params))
        logged = gradtx.metrics(state)
        assert logged.keys() == LOGGED
        np.testing.assert_array_equal(logged["steps"], [1, 1, 1])
        np.testing.assert_allclose(logged["grad_norm"], 14**0.5 * np.arange(1, 4), rtol=1e-6)
        state = gradtx.set_hyperparams(state, learning_rate=jnp.array([0.1, 0.2, 0.3]))
        np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], [0.1, 0.2, 0.3])
        with pytest.raises(
            ValueError, match=r"hyperparams\.learning_rate: expected float32\[3\] like what it replaces"
        ):
            gradtx.set_hyperparams(state, learning_rate=0.1)

    def test_optax(self):
        """Its states have the names of ours; the counter of the plateau counts values, no steps."""
        tx = optax.chain(optax.apply_if_finite(optax.identity(), 5), optax.contrib.reduce_on_plateau())
        assert gradtx.metrics(tx.init(PARAMS)).keys() == {"plateau_scale", "skipped"}

    def test_a_state_of_ones_own_is_read_by_the_names_of_its_fields(self):
        class RateMemory(NamedTuple):
            count: Any
            learning_rate: Any

        class own_rate(gradtx.GradientTransformation, name="test_state_tools.own_rate"):
            State = RateMemory

            def init_fn(self, params):
                return RateMemory(jnp.zeros((), jnp.int32), jnp.asarray(0.5))

            def update_fn(self, updates, state, params=None):
                return updates, state

        logged = gradtx.metrics(gradtx.chain(gradtx.scale(-1.0), own_rate()).init(PARAMS))
        assert {name: float(value) for name, value in logged.items()} == {"learning_rate": 0.5, "steps": 0.0}

    def test_numpyro(self):
        numpyro_optim = pytest.importorskip("numpyro.optim")
        optimizer = numpyro_optim.optax_to_numpyro(INJECTED)
        state = gradtx.set_hyperparams(optimizer.init(PARAMS), learning_rate=0.25)
        state = optimizer.update(PARAMS, state, value=jnp.float32(1.0))
        logged = gradtx.metrics(state)
        assert logged.keys() == LOGGED
        assert (int(logged["steps"]), float(logged["learning_rate"])) == (1, 0.25)
        assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(PARAMS))
        np.testing.assert_allclose(optimizer.get_params(state)["mu"], 0.75, rtol=1e-5)

    def test_flax_train_state(self):
        state = TrainState.create(apply_fn=None, params=PARAMS, tx=INJECTED)
        state = gradtx.set_hyperparams(state, learning_rate=0.25)
        assert isinstance(state, TrainState)
        state = state.apply_gradients(grads=PARAMS)
        assert gradtx.metrics(state).keys() == LOGGED
        np.testing.assert_allclose(state.params["mu"], 0.75, rtol=1e-5)

    @of_todays_nnx
    def test_nnx(self):
        model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, INJECTED, wrt=nnx.Param)
        traces = []

        @nnx.jit
        def step(model, optimizer):
            traces.append(1)
            grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones((1, 2)))))(model)
            optimizer.update(model, grads)

        structure = jax.tree.structure(optimizer.opt_state)
        for rate in (0.5, 0.25):
            before = jnp.array(model.bias[...])
            optimizer.opt_state = gradtx.set_hyperparams(optimizer.opt_state, learning_rate=rate)
            step(model, optimizer)
            np.testing.assert_allclose(model.bias[...], before - rate, rtol=1e-4)
        assert len(traces) == 1
        assert jax.tree.structure(optimizer.opt_state) == structure
        logged = gradtx.metrics(optimizer.opt_state)
        assert logged.keys() == LOGGED
        assert (int(logged["steps"]), float(logged["learning_rate"])) == (2, 0.25)
        assert all(isinstance(value, jax.Array) for value in logged.values())
        assert float(tree.get(optimizer.opt_state, "learning_rate")) == 0.25


# Arithmetic.


A = {"x": jnp.asarray([1.0, -2.0]), "y": (jnp.asarray([[3.0, 4.0]]), None)}
B = {"x": jnp.asarray([0.5, 0.25]), "y": (jnp.asarray([[-1.0, 2.0]]), None)}
C = {"z": jnp.asarray([1 + 2j, -3j])}

CALLS = [
    ("add", (A, B)),
    ("add", (A, B, A)),
    ("sub", (A, B)),
    ("mul", (A, B)),
    ("div", (A, B)),
    ("scale", (0.5, A)),
    ("scale", (2.0, C)),
    ("add_scale", (A, -0.5, B)),
    ("vdot", (A, B)),
    ("vdot", (C, C)),
    ("sum", (A,)),
    ("sum", (A, True)),
    ("sum", ({},)),
    ("max", (A,)),
    ("min", (A,)),
    ("max", ({},)),
    ("min", ({"e": jnp.zeros((0,))},)),
    ("size", (A,)),
    ("norm", (A,)),
    ("norm", (A, 1)),
    ("norm", (A, "inf")),
    ("norm", (A, 2, True)),
    ("norm", (C,)),
    ("norm", ({},)),
    ("norm", (A, jnp.inf, True)),
    ("conj", (C,)),
    ("real", (C,)),
    ("clip", (A, -1.0, 3.0)),
    ("clip", (A, None, 0.0)),
    ("where", (True, A, B)),
    ("zeros_like", (A,)),
    ("ones_like", (A, "bfloat16")),
    ("full_like", (A, 3.0)),
    ("batch_shape", (A, (2, 3))),
    ("cast", (A, "bfloat16")),
    ("cast", (A, None)),
    ("cast_like", (A, B)),
    ("split_key_like", (jax.random.PRNGKey(0), A)),
    ("random_like", (jax.random.PRNGKey(0), A)),
    ("random_like", (jax.random.PRNGKey(0), A, jax.random.uniform)),
    ("update_moment", (A, B, 0.9, 1)),
    ("update_moment", (A, B, 0.9, 2)),
    ("update_infinity_moment", (A, B, 0.9, 1e-3)),
    ("update_moment_per_elem_norm", (A, B, 0.9, 2)),
    ("update_moment_per_elem_norm", (C, {"z": jnp.ones(2)}, 0.9, 2)),
    ("bias_correction", (A, 0.9, jnp.asarray(3))),
    ("allclose", (A, A)),
    ("allclose", (A, B)),
    ("dtype", (A,)),
    ("dtype", ({"a": jnp.ones(1), "b": jnp.ones(1, jnp.bfloat16)}, "highest")),
    ("dtype", ({"a": jnp.ones(1), "b": jnp.ones(1, jnp.bfloat16)}, "lowest")),
    ("unwrap_random_key_data", ({"k": jax.random.key(0)},)),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=lambda x: x if isinstance(x, str) else "")
def test_arithmetic_like_optax(name, arguments):
    if name == "sum" and jax.__version_info__ < (0, 6):
        pytest.skip("the sum of optax needs JAX 0.6")
    ours = getattr(tree, name)(*arguments)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = getattr(optax.tree, name)(*arguments)
    if name == "dtype":
        assert ours == theirs
        return
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.shape(x) == jnp.shape(y)
        if hasattr(y, "dtype") and hasattr(x, "dtype"):
            assert x.dtype == y.dtype
        np.testing.assert_allclose(np.asarray(x, complex), np.asarray(y, complex), rtol=1e-6)


def test_every_name_of_optax_is_there():
    names = {name for name in vars(optax.tree) if not name.startswith("_")}
    assert names - {*tree.__all__} == set()


class TestHalfPrecision:
    def test_sums_do_not_saturate(self):
        ones = {name: jnp.ones(1000, jnp.bfloat16) for name in "abc"}
        assert float(tree.sum(ones)) == 3000
        assert float(tree.vdot(ones, ones)) == 3000
        assert float(tree.norm(ones, 1)) == 3000
        assert tree.sum(ones).dtype == jnp.float32

    def test_leaves_keep_their_dtype(self):
        half = {"a": jnp.ones(2, jnp.bfloat16)}
        for result in (
            tree.scale(jnp.float32(0.5), half),
            tree.scale(0.5, half),
            tree.add_scale(half, jnp.float32(1.0), {"a": jnp.ones(2)}),
            tree.update_moment({"a": jnp.ones(2)}, half, 0.999, 2),
            tree.bias_correction(half, 0.9, 1),
        ):
            assert result["a"].dtype == jnp.bfloat16

    def test_mixed_sums(self):
        both = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2), "c": jnp.ones(2, jnp.float16)}
        assert float(tree.sum(both)) == 6
        assert float(tree.max(both)) == 1

    def test_a_norm_that_overflows(self):
        assert float(tree.norm({"a": jnp.full(4, 1e30)})) == pytest.approx(2e30)


def test_norm_of_another_order():
    with pytest.raises(ValueError, match=r"tree\.norm: ord must be 1, 2 or inf, got 3"):
        tree.norm(A, 3)


def test_mixed_dtypes():
    mixed = {"a": jnp.ones(1), "b": jnp.ones(1, jnp.bfloat16)}
    with pytest.raises(ValueError, match=r"several dtypes \(bfloat16, float32\); ask for 'highest', 'lowest'"):
        tree.dtype(mixed)
    with pytest.raises(ValueError, match="no highest dtype among bfloat16, float16"):
        tree.dtype({"a": jnp.ones(1, jnp.float16), "b": jnp.ones(1, jnp.bfloat16)}, "highest")


@pytest.mark.parametrize(
    "dtypes", [("float16", "bfloat16"), ("int32", "uint32"), ("float32", "complex64"), ("bfloat16", "bfloat16"), ()]
)
def test_what_dtypes_promote_to(dtypes):
    leaves = [jnp.ones(1, dtype) for dtype in dtypes]
    ours = tree.dtype(leaves, "promote")
    with jax.numpy_dtype_promotion("standard"):
        assert ours == optax.tree.dtype(leaves, "promote")


@pytest.mark.parametrize(
    "operation",
    [
        lambda library, updates, m: library.tree.add_scale(updates, 2.0, m),
        lambda library, updates, m: library.tree.update_moment(updates, m, 0.9, 1),
        lambda library, updates, m: library.tree.update_infinity_moment(updates, m, 0.9, 1e-8),
        lambda library, updates, m: library.tree.update_moment_per_elem_norm(updates, m, 0.9, 2),
    ],
)
def test_none_among_updates(operation):
    """Also as the whole tree, and in the place of a subtree."""
    moments = {"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}
    for updates in (None, {"a": jnp.full(2, 3.0), "b": None}, {"a": None, "b": {"c": jnp.full(3, 2.0)}}):
        ours, theirs = (operation(library, updates, moments) for library in (gradtx, optax))
        chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
