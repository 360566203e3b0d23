"""The noisy sum of clipped gradients that differential privacy is made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics
from gradtx.core.hyperparams import NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree
from gradtx.transforms.noise import Key, key_data_of, standard_normal
from gradtx.transforms.per_example import batch_of_examples, clipped_sum

__all__ = ["DifferentiallyPrivateAggregateState", "differentially_private_aggregate"]


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The generator of `differentially_private_aggregate`. It has nothing of the gradients, which would be in clear."""

    count: Array
    "int32[]: updates made so far."
    rng_key: Array
    "uint32[2]: the data of the key, which stays the same; noise is a function of it, `count` and the leaf's position."


class differentially_private_aggregate(GradientTransformation):
    """The mean of the gradients of a batch's examples, each clipped, with noise in proportion to the clip.

        u = (Σᵢ gᵢ · min(1, c / ‖gᵢ‖) + σ c n) / B,   n ~ N(0, 1) for each element

    It is given the gradients of single examples, `jax.vmap(jax.grad(loss), (None, 0))(params, batch)`, whose leaves
    have one more axis than the parameters, the first. ‖gᵢ‖ is the norm of the whole tree of example i. It is the first
    stage of a chain; wrappers other than `inject_hyperparams`, such as `accumulate`, may not hold it. The sum and the
    noise are in at least float32, each leaf and each step has a key of its own, and a run resumed from its state
    repeats its noise.

    What is guaranteed: without one of the examples, the sum changes by at most c, so that each step is a Gaussian
    mechanism of noise multiplier σ. If each example of the data is in a batch independently of the others, with the
    same probability q, the composition theorems for sampled Gaussian mechanisms turn σ, q and the number of steps into
    (ε, δ).

    What is not: there is no accountant here, so what was spent is computed elsewhere. The theorems do not hold

    - for batches that are drawn otherwise, such as consecutive parts of shuffled data;
    - for B that depends on which examples were drawn: fill the batch up with gradients of 0 to a size that is fixed;
    - for a loss in which an example has an effect on the gradients of others, as in batch normalisation;
    - for gradients that are not finite, which make the update NaN;
    - for a key that the adversary knows: draw it from the system's randomness;
    - for hyper-parameters that were chosen on the same data without being accounted for;
    - to the last digit, because the noise is made of floating-point numbers (Mironov, 2012).

    Abadi et al., 2016, Algorithm 1. https://arxiv.org/abs/1607.00133

    Raises:
        ValueError: a leaf has no first axis, or one of another length; there is no example.

    >>> import jax.numpy as jnp
    >>> tx = differentially_private_aggregate(1.0, 0.0, key=0)
    >>> params, grads = jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 0.5]])
    >>> tx.update(grads, tx.init(params), params)[0]
    Array([0.3 , 0.65], dtype=float32)
    """

    State = DifferentiallyPrivateAggregateState
    sums_examples = True

    l2_norm_clip: NonNegative
    "The largest norm c of one example's gradient; 0.1 to 10 are usual, about the median of the norms."
    noise_multiplier: NonNegative
    "Deviation σ of the noise as a multiple of c; 0.5 to 4 are usual. With 0 nothing is private."
    key: Key
    "An integer seed or a random key, which must be secret and used for one run only."

    def init_fn(self, params: Tree) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(numerics.counter(), key_data_of(self.key))

    def update_fn(
        self, updates: Tree, state: Any, params: Tree = None
    ) -> tuple[Tree, DifferentiallyPrivateAggregateState]:
        grads = batch_of_examples("differentially_private_aggregate: updates", updates)
        examples = next((len(g) for g in jax.tree.leaves(grads)), 1)
        if not examples:
            raise ValueError(
                "differentially_private_aggregate: the updates have no examples: their first axis is empty"
            )
        bound, multiplier = (jnp.asarray(x, jnp.result_type(float)) for x in (self.l2_norm_clip, self.noise_multiplier))
        total, _ = clipped_sum(grads, bound)
        count = numerics.increment(state.count)
        deviation = multiplier * bound

        def noisy_mean(x: Array, n: Array) -> Array:
            return (x + deviation.astype(x.dtype) * n) * (1 / examples)

        noise = standard_normal(state.rng_key, count, total)
        return jax.tree.map(noisy_mean, total, noise), state._replace(count=count)
