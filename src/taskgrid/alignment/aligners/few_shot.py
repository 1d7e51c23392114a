"""Few-shot fine-tuning of the target, from the images that aligners learn from: what they must beat.

    theta = argmin over theta of the cross-entropy on the images, from theta_0'

Nothing of the task vector arrives. Whoever has labelled images enough to learn a transport could have
fine-tuned with them, so that a transport that learns is worth what it is better than this.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskgrid.alignment.few import learn
from taskgrid.alignment.maps import Instead, Transport
from taskgrid.alignment.seam import AlignContext
from taskgrid.finetuning.modes import attention, standard
from taskgrid.finetuning.modes.seam import Mode, Others
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import AlignerCard, plugin_options
from taskgrid.plugins.options import Option
from taskgrid.vectors import subtract

CARD = AlignerCard(
    title="Few-shot fine-tuning",
    per="task",
    sees="labels",
    options={
        "mode": Option(
            default="standard",
            choices=("standard", "attention"),
            about="what trains: the fine-tuning mode of that name, with its defaults",
        ),
        "steps": Option(
            default=300,
            kind="integer",
            least=1,
            most=1_000_000,
            about="steps of AdamW, however many images there are",
        ),
        "batch_size": Option(
            default=64, kind="integer", least=1, about="images in a step, where there are so many"
        ),
        "lr": Option(default=1e-5, above=0, about="its peak learning rate", origin="the recipe's"),
        "weight_decay": Option(
            default=0.1, least=0, about="on all that trains", origin="the recipe's"
        ),
        "augment": Option(
            default=0.9,
            above=0,
            most=1,
            about="smallest area of a random crop, as a share of the image; 1 crops nothing",
            origin="the recipe's `crop_scale`",
        ),
    },
)  # fmt: skip

_MODES: Mapping[str, Mode] = {"standard": standard.MODE, "attention": attention.MODE}


class FewShot:
    """Trains the target's base; the vector is not looked at."""

    def align(self, context: AlignContext) -> Transport:
        """Return what was learned in the place of what could have been carried."""
        mode = context.options.mode
        encoder = ImageEncoder.from_card(context.target.the_card(), context.target.base)
        # Neither of the modes draws or reads of other tasks.
        trainee = _MODES[mode].prepare(encoder, plugin_options("mode", mode, {}), 0, Others())
        learn(context, trainee)
        state = {key: tensor.cpu() for key, tensor in trainee.visual_state().items()}
        learned = subtract(context.target.base, state, context.task)
        return Transport(context.source.end, context.target.end, Instead(learned))


ALIGNER = FewShot()
