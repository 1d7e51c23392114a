"""What adding a task vector does inside the network: features of base, experts and merges, layer by layer.

Nothing is asked of the grid. The rule `watch` looks at the networks of each run on training images
(`evaluation.features`), and this study joins what it saw.
"""

from __future__ import annotations

from collections.abc import Container

import pyarrow as pa

from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import canonical_subset, subset_name
from taskgrid.plugins.cards import Column, StudyCard, TableCard, study_card
from taskgrid.plugins.options import Option
from taskgrid.store.columns import card_schema
from taskgrid.studies.seam import Field, Reading, Results

CARD = StudyCard(
    title="A look inside the network",
    paper="the maps of norms follow kawakera-lab/CrossModelTransfer; CKA: Kornblith et al., Similarity of "
    "Neural Network Representations Revisited, ICML 2019; representation bias: Yang et al., Representation "
    "Surgery, ICML 2024",
    options={
        "study": Option(default="addition", about="the study whose chosen points are looked at"),
        "modes": Option(
            default=None,
            kind="names",
            about="whose networks are looked at: modes, ready-made or transported experts; null is every "
            "one that is evaluated as it is",
        ),
        "subsets": Option(
            default=None,
            kind="lists",
            about="the merges that are looked at, lists of tasks; null is the merge of all tasks",
        ),
        "images": Option(
            default=256,
            kind="integer",
            least=0,
            about="training images of each task; 0 takes all",
            origin="the statistic `gram`",
        ),
        "lambdas": Option(
            default=[],
            kind="series",
            about="further coefficients at which features are looked at, of merges that have one and of each "
            "task vector alone",
        ),
        "weights_at": Option(
            default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
            kind="series",
            about="the coefficients of the curves of weight norms",
            origin="the source's range, in coarser steps",
        ),
    },
    tables={
        "norms": TableCard(
            row="a token in a part of a layer: how long its features are in the base, and how far a network "
            "is from them",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "subset": None,
                "point": None,
                "scale": None,
                "chosen": Column(
                    kind="flag",
                    about="whether the study chose the point, or it is the expert's; `lambdas` adds others",
                ),
                "task": Column(kind="text", about="whose training images"),
                "layer": None,
                "depth": Column(kind="integer", about="the layer's place from pixels to features"),
                "part": Column(
                    kind="text",
                    about="`q`, `k`, `v`: queries, keys, values, all heads side by side; `attention`, `mlp`: "
                    "what these give; `block`: the residual stream behind both, of `embedding` what enters "
                    "the first block, of `output` the features that go to the head, as if of one token",
                ),
                "token": Column(
                    kind="integer", about="0 is the class token, then the patches row by row"
                ),
                "n": None,
                "norm_base": Column(kind="number", about="norm of f(theta_0), mean over the images"),
                "norm_delta": Column(
                    kind="number", about="norm of f(theta) - f(theta_0), mean over the images"
                ),
                "sample_base": Column(
                    kind="number", about="`norm_base` of the one image that is in `pixels`"
                ),
                "sample_delta": Column(kind="number", about="`norm_delta` of that image"),
            },
        ),
        "pixels": TableCard(
            row="a pixel of the first image of a task that was looked at",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "task": Column(kind="text", about="whose image"),
                "pixel_y": Column(kind="integer", about="its row, from the top"),
                "pixel_x": Column(kind="integer", about="its column"),
                "red": Column(kind="integer", about="0 to 255"),
                "green": Column(kind="integer", about="0 to 255"),
                "blue": Column(kind="integer", about="0 to 255"),
            },
        ),
        "similarity": TableCard(
            row="two networks in a layer, on images of a task; the base is `zeroshot`, the task's expert "
            "`expert`",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "task": Column(kind="text", about="whose training images"),
                "layer": None,
                "depth": Column(kind="integer", about="the layer's place from pixels to features"),
                "method": Column(kind="text", about="the one network"),
                "options": None,
                "subset": None,
                "point": None,
                "other_method": Column(kind="text", about="the other network"),
                "other_options": Column(kind="text", about="its options"),
                "other_subset": Column(kind="text", about="its tasks"),
                "other_point": Column(kind="text", about="its coefficients"),
                "chosen": Column(kind="flag", about="whether both points are chosen ones, as in `norms`"),
                "n": None,
                "cka": Column(
                    kind="number",
                    about="linear CKA of what the class token is behind the block; null where it is the same "
                    "for all images",
                ),
                "cosine": Column(
                    kind="number",
                    about="cosine of the two class tokens, mean over images; null where one is zero",
                ),
            },
        ),
        "bias": TableCard(
            row="a network on images of one of its tasks: how far its features are from the expert's",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "subset": None,
                "point": None,
                "scale": None,
                "chosen": Column(
                    kind="flag",
                    about="whether the study chose the point, or it is the expert's; `lambdas` adds others",
                ),
                "task": Column(kind="text", about="whose training images and whose expert"),
                "n": None,
                "l1": Column(
                    kind="number",
                    about="|z - z_expert|, mean over features and images: the representation bias",
                ),
                "l2": Column(kind="number", about="norm of z - z_expert, mean over images"),
                "l1_left": Column(
                    kind="number",
                    about="`l1` of what the method makes of the features (surgery); null for others",
                ),
                "l2_left": Column(kind="number", about="the same of `l2`"),
            },
        ),
        "weights": TableCard(
            row="a network's weights in a part of a layer",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "subset": None,
                "point": None,
                "scale": None,
                "task": Column(
                    kind="text",
                    about="whose model it is, of a method with a model for each task; null for others",
                ),
                "layer": None,
                "depth": None,
                "part": Column(
                    kind="text",
                    about="`q`, `k`, `v`, `attention` (its output), `mlp`, `norm`, `embedding`, "
                    "`projection`, `other`, weights and biases together; `all` of them",
                ),
                "norm": Column(kind="number", about="norm of theta"),
                "norm_base": Column(kind="number", about="norm of theta_0"),
                "norm_delta": Column(kind="number", about="norm of theta - theta_0"),
            },
        ),
    },
    measured="features",
    figures=(
        "feature_maps", "feature_depth", "feature_similarity", "representation_bias", "weight_norms",
    ),
)  # fmt: skip


class Features(Reading):
    """The study ``features``: what the rule `watch` saw of each run, in one table of each kind."""

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse merges that are not on the grid."""
        for tasks in self.options.subsets or [field.trained]:
            subset = canonical_subset(tasks)
            if subset not in subsets:
                raise ConfigError(
                    f"study 'features' looks at the merge of {subset_name(subset)}, which is not on the "
                    "grid; add it to grid.subsets.include, or name others in the study's option `subsets`"
                )

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the rows of all runs, in the order of their names."""
        runs = sorted((one for one in results.measured if one.num_rows), key=_run)
        schema = card_schema(study_card("features").tables[name])
        return pa.concat_tables([schema.empty_table(), *(run.cast(schema) for run in runs)])


def _run(table: pa.Table) -> tuple[str, str, int]:
    model, mode, seed = (table[name][0].as_py() for name in ("model", "mode", "seed"))
    return model, mode, seed


STUDY = Features
