"""Training on the few labelled images of a task that an aligner is shown, as experts are trained.

An aligner that calls it has the options ``steps``, ``batch_size``, ``lr``, ``weight_decay`` and ``augment``.
"""

from __future__ import annotations

from contextlib import closing

from taskgrid.alignment.seam import AlignContext
from taskgrid.finetuning.feed import Feed, Samples
from taskgrid.finetuning.modes.seam import Trainee
from taskgrid.finetuning.recipe import Recipe
from taskgrid.finetuning.training import Training, own_settings
from taskgrid.provenance.digests import derive_seed


def learn(context: AlignContext, trainee: Trainee) -> None:
    """Train what is free in a trainee under the task's head, on the context's images.

    AdamW with a tenth of the steps as warm-up, then cosine decay to zero; gradients are clipped to 1.
    The number of steps does not depend on the number of images.

    Args:
        context: the images, the head and the options.
        trainee: what trains.

    Raises:
        LineageError: if it is shown no images or no head of the task.
        TrainingError: if the training diverges, or nothing of the trainee is free.
    """
    options, shown, head = context.options, context.the_images(), context.the_head()
    examples, device = shown.examples[context.task], shown.device
    samples = Samples(examples.pixels, examples.labels)
    recipe = Recipe(
        steps=options.steps,
        batch_size=min(options.batch_size, len(samples)),
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup_steps=options.steps // 10,
        crop_scale=options.augment,
    )
    root = derive_seed("few", context.seed, context.task)
    with (
        own_settings(device),
        closing(Feed(samples, recipe, root, options.steps, device)) as feed,
    ):
        Training(
            trainee.to(device),
            head,
            feed,
            None,
            recipe,
            total=options.steps,
            period=options.steps,
            task=context.task,
            root=root,
            device=device,
        ).advance()
