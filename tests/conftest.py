"""Every test runs under strict dtype and rank promotion; pyproject.toml turns warnings into errors.

Compiling is most of what the tests cost, and nearly every program is run once on a few numbers, so XLA is told to
compile quickly. A test that counts what XLA makes of a program compiles it with `helpers.AS_BY_DEFAULT`, and
`make test-long` compiles everything as users do.
"""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false",
)

import chex
import jax
import pytest
from helpers import enable_x64, forget_programs

gc.set_threshold(100_000, 20, 50)  # JAX makes many objects that stay
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
    """What the modules made stays for good: collecting garbage need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def each_on_its_own():
    """Chex counts traces by test; JAX keeps each program that it compiled, which over all tests is gigabytes."""
    chex.clear_trace_counter()
    yield
    forget_programs(beyond=400)
