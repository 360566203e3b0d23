"""Loss functions, under the names of `optax.losses`: functions of predictions and targets, to be differentiated.

>>> import jax.numpy as jnp
>>> from gradtx import losses
>>> with jnp.printoptions(precision=3, suppress=True):
...     print(losses.softmax_cross_entropy_with_integer_labels(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 1])))
[0.313 0.049]

What holds for all of them:

- Values are right for every finite argument, however large or small, if neither they nor differences of arguments
  overflow. The gradient is never NaN for finite arguments.
- Predictions, logits and scores are floating-point arrays; targets and labels may also be integers or bools where
  nothing else is said. Half precision is computed in float32. The result has the dtype that JAX's promotion gives to
  the arguments that are arrays, also under strict promotion; parameters, such as a margin, do not count.
- No shape is broadcast by mere accident: losses of single elements take equal shapes and scalars, so that (n,) with
  (n, 1) is an error. Losses of vectors also broadcast axes beside the vectors that are there with size 1, and may lack
  the leading axes.
- `where` is a mask of bools. Elements that it leaves out may be anything, also NaN: their derivative is 0.
- A class number out of range, which cannot be refused inside a compiled program, makes a loss of NaN.
"""

from gradtx.losses.binary import (
    hinge_loss,
    perceptron_loss,
    sigmoid_binary_cross_entropy,
    sigmoid_focal_loss,
    sparsemax_loss,
)
from gradtx.losses.contrastive import (
    ntxent,
    triplet_margin_loss,
)
from gradtx.losses.ctc import (
    ctc_loss,
    ctc_loss_with_forward_probs,
)
from gradtx.losses.divergence import (
    convex_kl_divergence,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)
from gradtx.losses.fenchel_young import (
    make_fenchel_young_loss,
)
from gradtx.losses.multiclass import (
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    multiclass_sparsemax_loss,
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    smooth_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from gradtx.losses.ranking import (
    ranking_softmax_loss,
)
from gradtx.losses.regression import (
    huber_loss,
    l2_loss,
    log_cosh,
    squared_error,
)
from gradtx.losses.segmentation import (
    binary_dice_loss,
    dice_loss,
    multiclass_generalized_dice_loss,
)
from gradtx.losses.similarity import (
    cosine_distance,
    cosine_similarity,
)

__all__ = [
    "binary_dice_loss",
    "convex_kl_divergence",
    "cosine_distance",
    "cosine_similarity",
    "ctc_loss",
    "ctc_loss_with_forward_probs",
    "dice_loss",
    "generalized_kl_divergence",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "l2_loss",
    "log_cosh",
    "make_fenchel_young_loss",
    "multiclass_generalized_dice_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "ntxent",
    "perceptron_loss",
    "poly_loss_cross_entropy",
    "ranking_softmax_loss",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "sparsemax_loss",
    "squared_error",
    "triplet_margin_loss",
]
