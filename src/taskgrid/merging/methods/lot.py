"""LOT Merging: task vectors fused layer by layer so that features drift least.

    theta = theta_0 + lambda * T,   T^T = (sum_t X_t^T X_t)^+ sum_t X_t^T X_t tau_t^T

Sun et al., "Towards Minimizing Feature Drift in Model Merging: Layer-wise Task Vector Fusion for Adaptive
Knowledge Integration" (NeurIPS 2025, arXiv 2505.23859), equation 9: T minimises the drift
sum_t |X_t T^T - X_t tau_t^T|^2 of what a linear map gives for the inputs X_t that expert t sees; ^+ is the
pseudoinverse. Equation 12 is the same for the scale of a norm, entry by entry: the mean of the tau_t
weighted by the squares of its (normalised) inputs. Biases and what has no inputs are averaged. The paper's
model is the one at lambda 1.
"""

from __future__ import annotations

from taskgrid.merging.bases.least_squares import LeastSquares
from taskgrid.plugins.cards import MergerCard

CARD = MergerCard(
    title="LOT Merging",
    paper="Sun et al., Towards Minimizing Feature Drift in Model Merging, NeurIPS 2025, equations 9 and 12",
    needs=("gram",),
    scope="tensor",
)


class Lot(LeastSquares):
    """Least squares, for linear maps and for scales of norms."""

    scales = True


MERGER = Lot()
