"""RegMean: each linear map is the one that all experts' maps agree with best on their own inputs.

    theta = theta_0 + lambda * (m - theta_0),   m^T = (sum_t G_t)^-1 sum_t G_t theta_t^T

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models" (ICLR 2023), equation 2
and algorithm 1: m minimises sum_t |X_t m^T - X_t theta_t^T|^2, where X_t are the inputs that expert t sees
and G_t = X_t^T X_t, its entries off the diagonal multiplied by ``off_diagonal``. All other tensors are
averaged. The paper's model is the one at lambda 1; the line to it from the base is what is walked here.

A map with several parts that share an input, as the fused ``in_proj``, gives what its parts would give
apart: the result does not depend on the layout.
"""

from __future__ import annotations

from taskgrid.merging.bases.least_squares import LeastSquares
from taskgrid.models.layout import layer_of
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="RegMean",
    paper="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023, "
    "equation 2 and algorithm 1",
    options={
        "off_diagonal": Option(
            default=0.95,
            least=0.0,
            most=1.0,
            about="factor on entries of G_t off its diagonal; 1 is least squares, 0 weighs each input alone",
            origin="FusionBench; the paper takes 0.9 for most models",
        ),
        "normalize": Option(
            default="images",
            choices=("images", "none"),
            about="take means of G_t over images, or sums, in which a task with more images counts for more",
        ),
        "layers": Option(
            default="all",
            choices=("all", "blocks"),
            about="which linear maps are solved for; `blocks` averages patch embedding and projection, as "
            "codes do that know nn.Linear alone",
        ),
    },
    needs=("gram",),
    scope="tensor",
)


class RegMean(LeastSquares):
    """Least squares with what is off the diagonal of G_t shrunk."""

    def off_diagonal(self, options: Options) -> float:
        """Return the option of that name."""
        return float(options.off_diagonal)

    def means(self, options: Options) -> bool:
        """Return whether every task counts alike."""
        return bool(options.normalize == "images")

    def solved(self, key: str, options: Options) -> bool:
        """Return whether the option ``layers`` names the tensor's."""
        return options.layers == "all" or layer_of(key).startswith("block")


MERGER = RegMean()
