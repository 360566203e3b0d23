"""Parameters sharded over a mesh whose axes are explicit: shardings are part of the types, and must not drift."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx as gx

if not hasattr(jax, "set_mesh"):
    pytest.skip("explicit meshes are set otherwise before JAX 0.6.1", allow_module_level=True)

RNG = np.random.default_rng(0)
PARAMS = {
    "stack": jnp.asarray(RNG.normal(size=(2, 4, 6)), jnp.float32),
    "matrix": jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32),
}
LAYOUTS = {
    "leading": {"stack": PartitionSpec("d"), "matrix": PartitionSpec()},
    "rows": {"stack": PartitionSpec(None, "d"), "matrix": PartitionSpec("d")},
    "columns": {"stack": PartitionSpec(None, None, "d"), "matrix": PartitionSpec(None, "d")},
}
OPTIMIZERS = {
    "adamw": gx.adamw(0.01),
    "adafactor": gx.adafactor(0.01, min_dim_size_to_factor=2, momentum=0.9),
    "torch_adafactor": gx.torch_adafactor(0.01),
    "galore": gx.galore(0.01, 2, 1, weight_dimension_numbers=gx.MuonDimensionNumbers(-2, -1)),
    "sm3": gx.sm3(0.1),
    "sophia": gx.sophia(0.1, gamma=10.0, update_interval=1),
    "prodigy": gx.prodigy(estim_lr0=0.01),
    "ldog": gx.ldog(init_step=("distance", 0.1)),
    "mechanize": gx.mechanize(gx.sgd(0.1), s_init=0.1),
    "muon": gx.muon(0.02, muon_mask=gx.weights_only(), muon_weight_dimension_numbers=gx.MuonDimensionNumbers(-2, -1)),
}


def types(tree):
    return [str(jax.typeof(x)) for x in jax.tree.leaves(tree)]


def train(tx, params):
    """Two steps in a scan, whose carry must keep its types; the parameters and the state, before and after."""

    @jax.jit
    def run(params, state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params, **helpers.extra_for(tx, params))
            return (gx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=2)[0]

    state = tx.init(params)
    return (params, state), run(params, state)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sharded_training_is_training(name, layout):
    tx = OPTIMIZERS[name]
    _, expected = train(tx, PARAMS)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
        before, after = train(tx, jax.tree.map(place, PARAMS, LAYOUTS[layout]))
    assert types(before) == types(after)
    for got, want in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-5, atol=1e-6)
