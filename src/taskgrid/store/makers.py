"""Which rule of the workflow makes which file of results: what a person is told when one is damaged."""

from __future__ import annotations

from pathlib import Path

_EXPERT = "experts/*/*/*/*"
_BLOCK = "eval/*/*/*/*/*"

MAKERS = {
    "downloads/*.json": ("download",),
    "data/*/*/*": ("dataset",),
    "splits/*/*.json": ("split",),
    "models/*/*": ("base",),
    "pretrain/*": ("pretrain",),
    "heads/*/*": ("head",),
    f"{_EXPERT}/run.json": ("record_expert",),
    f"{_EXPERT}/verified.json": ("verify_expert",),
    f"{_EXPERT}/*": ("finetune", "import_expert", "transport"),
    "vectors/*/*/*/conflicts.parquet": ("conflict",),
    "vectors/*/*/*/*": ("taskvector",),
    "alignments/*/*/*/*": ("align",),
    "statistics/*/base/*": ("base_statistic",),
    "statistics/*/*/*/*/*": ("statistic",),
    "learned/*/*/*/*/*/*": ("learn",),
    "merge/*/*/*/*/lattice.json": ("plan_lattice",),
    "merge/*/*/*/*/*": ("merge",),
    "eval/*/*/*/precision.json": ("precision",),
    "eval/*/*/*/reference/*": ("reference",),
    "eval/*/*/*/margins.parquet": ("margins",),
    "eval/*/*/*/*/lattice/*": ("predict",),
    f"{_BLOCK}/run.json": ("record_block",),
    f"{_BLOCK}/continuous.parquet": ("continuous",),
    f"{_BLOCK}/*": ("eval",),
    "features/*/*/*/*/*": ("watch",),
    "export/*/*/*/*/*/*": ("export",),
    "registered/*/*/*/expert/*/*": ("register_expert",),
    "registered/*/*/*/merge/*/*": ("register_merge",),
    "tables/conflicts.parquet": ("conflict_table",),
    "tables/continuous.parquet": ("continuous_table",),
    "tables/lattice.*": ("lattice",),
    "tables/precision.*": ("precision_table",),
    "tables/*/*": ("study",),
    "tables/*": ("grid",),
    "figures/*": ("figure",),
    "report.html": ("report",),
    "registry/*": ("sync",),
    "explorer.html": ("explorer",),
}
"""Files below ``results`` -> the rules that make them; the first pattern that fits counts."""


def makers_of(path: str | Path) -> tuple[str, ...]:
    """Return the rules of which one makes a file; none where it is not one of the workflow's."""
    found = (MAKERS[name] for name in MAKERS if Path(path).match(f"results/{name}"))
    return next(found, ())


def mend(path: str | Path, elsewhere: str = "delete it and run again") -> str:
    """Say how a person comes by a whole file again; ``elsewhere`` where no rule makes it."""
    rules = " or ".join(f"`{rule}`" for rule in makers_of(path))
    return f"delete it and run again: rule {rules} makes it anew" if rules else elsewhere
