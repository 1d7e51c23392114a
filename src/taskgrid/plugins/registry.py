"""The registry of plug-ins: one line each.

A plug-in is one module plus one line here. This module maps names to modules and does nothing else,
so it never enters a code digest (`taskgrid.provenance.code`): adding a line re-runs no rule. It
imports nothing heavy, because the Snakefile reads it while it is parsed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Literal

from taskgrid.errors import ConfigError
from taskgrid.sentences import unknown

Kind = Literal[
    "source", "layout", "builtin", "statistic", "mode", "merger", "aligner", "study", "figure"
]

_PLUGINS = MappingProxyType(
    {
        "source": {
            "builtin": "taskgrid.data.sources.builtin",
            "folder": "taskgrid.data.sources.folder",
            "npz": "taskgrid.data.sources.npz",
            "parquet": "taskgrid.data.sources.parquet",
            "published": "taskgrid.data.sources.published",
        },
        # Readers of the original files of published data sets.
        "layout": {
            "cifar": "taskgrid.data.published.layouts.cifar",
            "class_folders": "taskgrid.data.published.layouts.class_folders",
            "dtd": "taskgrid.data.published.layouts.dtd",
            "fer2013": "taskgrid.data.published.layouts.fer2013",
            "flowers102": "taskgrid.data.published.layouts.flowers102",
            "food101": "taskgrid.data.published.layouts.food101",
            "gtsrb": "taskgrid.data.published.layouts.gtsrb",
            "idx": "taskgrid.data.published.layouts.idx",
            "oxford_iiit_pet": "taskgrid.data.published.layouts.oxford_iiit_pet",
            "pcam": "taskgrid.data.published.layouts.pcam",
            "resisc45": "taskgrid.data.published.layouts.resisc45",
            "stanford_cars": "taskgrid.data.published.layouts.stanford_cars",
            "stl10": "taskgrid.data.published.layouts.stl10",
            "sun397": "taskgrid.data.published.layouts.sun397",
            "svhn": "taskgrid.data.published.layouts.svhn",
        },
        # The first five are the default's; `catalogue` is the control task, the part that ImageNet
        # plays in the papers.
        "builtin": {
            "handwritten": "taskgrid.data.builtin.handwritten",
            "street_digits": "taskgrid.data.builtin.typed",
            "road_signs": "taskgrid.data.builtin.road_signs",
            "textures": "taskgrid.data.builtin.textures",
            "pictograms": "taskgrid.data.builtin.pictograms",
            "counting": "taskgrid.data.builtin.counting",
            "flags": "taskgrid.data.builtin.flags",
            "shapes": "taskgrid.data.builtin.shapes",
            "print_digits": "taskgrid.data.builtin.typed",
            "print_letters": "taskgrid.data.builtin.typed",
            "street_letters": "taskgrid.data.builtin.typed",
            "catalogue": "taskgrid.data.builtin.catalogue",
        },
        "statistic": {
            "fisher": "taskgrid.statistics.fisher",
            "fisher_base": "taskgrid.statistics.fisher_base",
            "gram": "taskgrid.statistics.gram",
        },
        "mode": {
            "standard": "taskgrid.finetuning.modes.standard",
            "linear": "taskgrid.finetuning.modes.linear",
            "attention": "taskgrid.finetuning.modes.attention",
            "lora": "taskgrid.finetuning.modes.lora",
        },
        "merger": {
            "adamerging": "taskgrid.merging.methods.adamerging",
            "atlas": "taskgrid.merging.methods.atlas",
            "average": "taskgrid.merging.methods.average",
            "bezier": "taskgrid.merging.methods.bezier",
            "breadcrumbs": "taskgrid.merging.methods.breadcrumbs",
            "consensus": "taskgrid.merging.methods.consensus",
            "core_space": "taskgrid.merging.methods.core_space",
            "dare": "taskgrid.merging.methods.dare",
            "della": "taskgrid.merging.methods.della",
            "emr": "taskgrid.merging.methods.emr",
            "fisher": "taskgrid.merging.methods.fisher",
            "fs_merge": "taskgrid.merging.methods.fs_merge",
            "greedy_soup": "taskgrid.merging.methods.greedy_soup",
            "iso_c": "taskgrid.merging.methods.iso_c",
            "iso_cts": "taskgrid.merging.methods.iso_cts",
            "karcher": "taskgrid.merging.methods.karcher",
            "knots": "taskgrid.merging.methods.knots",
            "lines": "taskgrid.merging.methods.lines",
            "logit_ensemble": "taskgrid.merging.methods.logit_ensemble",
            "lot": "taskgrid.merging.methods.lot",
            "magmax": "taskgrid.merging.methods.magmax",
            "model_stock": "taskgrid.merging.methods.model_stock",
            "multi_slerp": "taskgrid.merging.methods.multi_slerp",
            "pcb": "taskgrid.merging.methods.pcb",
            "regmean": "taskgrid.merging.methods.regmean",
            "regmean_pp": "taskgrid.merging.methods.regmean_pp",
            "search": "taskgrid.merging.methods.search",
            "slerp": "taskgrid.merging.methods.slerp",
            "surgery": "taskgrid.merging.methods.surgery",
            "svc": "taskgrid.merging.methods.svc",
            "tall_mask": "taskgrid.merging.methods.tall_mask",
            "task_arithmetic": "taskgrid.merging.methods.task_arithmetic",
            "ties": "taskgrid.merging.methods.ties",
            "tsv_m": "taskgrid.merging.methods.tsv_m",
            "ubgm": "taskgrid.merging.methods.ubgm",
            "wudi": "taskgrid.merging.methods.wudi",
            "zipit": "taskgrid.merging.methods.zipit",
        },
        "aligner": {
            "few_shot": "taskgrid.alignment.aligners.few_shot",
            "none": "taskgrid.alignment.aligners.none",
            "orthogonal": "taskgrid.alignment.aligners.orthogonal",
            "ot": "taskgrid.alignment.aligners.ot",
            "rebasin": "taskgrid.alignment.aligners.rebasin",
        },
        "study": {
            "addition": "taskgrid.studies.addition",
            "negation": "taskgrid.studies.negation",
            "analogy": "taskgrid.studies.analogy",
            "shapley": "taskgrid.studies.shapley",
            "comparison": "taskgrid.studies.comparison",
            "features": "taskgrid.studies.features",
            "transfer": "taskgrid.studies.transfer",
            "barriers": "taskgrid.studies.barriers",
        },
        "figure": {
            "lambda_curve": "taskgrid.plots.lambda_curve",
            "subset_size": "taskgrid.plots.subset_size",
            "heatmap": "taskgrid.plots.heatmap",
            "cross_evaluation": "taskgrid.plots.cross_evaluation",
            "cosine": "taskgrid.plots.cosine",
            "conflicts": "taskgrid.plots.conflicts",
            "training": "taskgrid.plots.training",
            "published": "taskgrid.plots.published",
            "negation": "taskgrid.plots.negation",
            "analogy": "taskgrid.plots.analogy",
            "shapley": "taskgrid.plots.shapley",
            "methods": "taskgrid.plots.methods",
            "feature_maps": "taskgrid.plots.feature_maps",
            "feature_depth": "taskgrid.plots.feature_depth",
            "feature_similarity": "taskgrid.plots.feature_similarity",
            "representation_bias": "taskgrid.plots.representation_bias",
            "weight_norms": "taskgrid.plots.weight_norms",
            "transfer": "taskgrid.plots.transfer",
            "barriers": "taskgrid.plots.barriers",
        },
    }
)

ENTRY_POINTS = "taskgrid.plugins"
"""The group in which an installed package registers its own: ``"merger.mine" = "package.module"``."""

NOUNS: Mapping[Kind, str] = {
    "source": "task source",
    "layout": "layout of original files",
    "builtin": "built-in task",
    "statistic": "statistic",
    "mode": "fine-tuning mode",
    "merger": "merge method",
    "aligner": "aligner",
    "study": "study",
    "figure": "figure",
}


def names(kind: Kind) -> tuple[str, ...]:
    """Return the registered names of a kind, in registry order, those of other packages last."""
    return tuple(_known(kind))


def module_of(kind: Kind, name: str) -> str:
    """Return the dotted name of the module behind a plug-in.

    Raises:
        ConfigError: if there is no such plug-in; the text lists those that exist.
    """
    known = _known(kind)
    if name not in known:
        raise ConfigError(unknown(NOUNS[kind], name, known))
    return known[name]


def load(kind: Kind, name: str) -> ModuleType:
    """Import and return the module behind a plug-in.

    Raises:
        ConfigError: if there is no such plug-in.
    """
    return importlib.import_module(module_of(kind, name))


def packages() -> tuple[str, ...]:
    """Return the packages whose code results may depend on: this one, and those with plug-ins."""
    outside = {
        module.partition(".")[0] for found in _outside().values() for module in found.values()
    }
    return ("taskgrid", *sorted(outside - {"taskgrid"}))


def source_of(module: str) -> Path | None:
    """Return the file of a module, which is not imported; None where there is none."""
    head, *rest = module.split(".")
    root = _root(head)
    if root is None:
        return None
    if root.name != "__init__.py":
        return root if not rest else None
    base = root.parent.joinpath(*rest)
    for path in (base.with_suffix(".py") if rest else root, base / "__init__.py"):
        if path.is_file():
            return path
    return None


def is_package(module: str) -> bool:
    """Return whether a module is a package: its file, at least, which hands out names."""
    path = source_of(module)
    return path is not None and path.name == "__init__.py"


def _known(kind: Kind) -> dict[str, str]:
    own = _PLUGINS[kind]
    outside = _outside().get(kind, {})
    for name in own.keys() & outside.keys():
        raise ConfigError(
            f"{NOUNS[kind]} {name!r} of {outside[name]} has the name of one of taskgrid's own; rename it"
        )
    return {**own, **outside}


@cache
def _outside() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        kind, _, name = point.name.partition(".")
        if kind not in _PLUGINS or not name:
            raise ConfigError(
                f"the entry point {point.name!r} of {point.value} is no plug-in; call it KIND.NAME, KIND one "
                f"of {', '.join(_PLUGINS)}"
            )
        found.setdefault(kind, {})[name] = point.value
    return found


@cache
def _root(package: str) -> Path | None:
    if package == "taskgrid":
        return Path(__file__).resolve().parents[1] / "__init__.py"
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
