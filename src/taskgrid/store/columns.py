"""Columns: the type of each, and what it is in words. One name is one thing in every table.

Schemas are made from this module, and the words go with them into the files: ``docs/tables.md`` and the
field metadata of the Parquet files say the same. It computes nothing, so it is in no digest of code.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from taskgrid.plugins.cards import Column, ColumnKind, TableCard

ABOUT = b"about"
"""The key of a field's words in its metadata."""

_TEXT = {
    "about": "what the question is about, where a study has several of one subset; empty where not",
    "key": "digest of all that the row depends on; its per-image outcomes are stored under it",
    "lambda_rule": "how the source chose lambda: a number, `val`, `test` or `unstated`; empty where its "
    "method has none",
    "layer": "a layer of the image tower, as `block 3`; `all` of them together",
    "lineage": "the family of checkpoints and splits that the published number belongs to",
    "machine": "what the comparison ran on",
    "method": "the merge method; `zeroshot` is the base, `expert` a fine-tuned model",
    "metric": "what was measured",
    "mode": "how the experts were fine-tuned; null for the base alone",
    "model": "the base model's name in the configuration",
    "note": "what to know before comparing",
    "options": "the method's options, all of them, as JSON with sorted keys; of a method with more than one "
    "model also `storage`, what is kept beside the base for T tasks",
    "partner": "the task that joins",
    "point": "the scaling coefficients as text: `0.30` for every task, `a:0.30,b:-0.50` for each its own",
    "precision": "the number format of the forward passes",
    "published_from": "whose number it is, and what other sources of its lineage print",
    "role": "why the row is there: `reference` (the base or an expert), `selection` (to choose on "
    "validation), `selected` (a chosen point on test), `curve` (test, which chose nothing), "
    "`lattice` (on a budget)",
    "row": "what the line is about: `zeroshot`, `expert` (each on its own task), `size` (the subsets of one "
    "size, each at its own chosen point: means over them), `all` (the merge of all tasks)",
    "rule": "how the point was chosen, in words",
    "source": "where the published number is printed",
    "split": "`val` or `test`",
    "study": "the study that asked, by its label in the configuration",
    "subset": "the merged tasks, sorted and joined by `+`; empty for the base",
    "task": "whose images and head; in a table of means over tasks null, `all` or `average`",
    "task_a": "one task",
    "task_b": "the other task",
    "tasks": "the tasks that were measured, joined by `+`: the scores are means over them",
    "weights": "which weights were compared: the base, an expert, a merge",
}
_INTEGER = {
    "audited": "merges that were drawn at random and measured",
    "beyond": "with confidence `level` at most so many predicted merges have a row beyond its bound",
    "changed": "images whose predicted class differs between the precisions",
    "core": "merges of at most two tasks that were measured",
    "correct": "number of images classified correctly",
    "depth": "the layer's place from pixels to features; null for `all`",
    "edges": "how many of the subsets chose the first or last point of their sweep",
    "further": "merges that were measured where the estimated error was largest",
    "n": "number of images",
    "rank": "k of `overlap`: 16, or a quarter of the smaller side of small matrices; null without a matrix",
    "rest": "merges that are only predicted",
    "seed": "seed of the fine-tuning; null for the base alone",
    "size": "number of merged tasks",
    "step": "finished updates",
    "subsets": "how many subsets the line is a mean of",
    "unexplained": "images whose predicted class differs by more than rounding explains",
}
_NUMBER = {
    "accuracy": "share of images classified correctly",
    "accuracy_high": "upper end of the 95 % interval of `accuracy`: Wilson's for one task, a paired "
    "bootstrap over images for a mean over tasks",
    "accuracy_low": "lower end of the 95 % interval of `accuracy`",
    "accuracy_min": "the worst subset's `accuracy`",
    "alone": "accuracy on test of the merge of the task alone, at its chosen point",
    "bias_high": "upper end of the interval of `bias_mean`",
    "bias_low": "lower end of the interval of `bias_mean`",
    "bias_mean": "mean error of predicted accuracies with its sign, predicted minus true",
    "bits_per_weight": "what is kept beside the base, in bits per weight of the image tower: 0 for a single "
    "model, which takes its place",
    "bound": "limit of the error of `accuracy` where the row is an estimate; null where it was measured",
    "change": "`together` minus `alone`",
    "cosine": "cosine of two task vectors; null where one is zero",
    "decay": "how fast effects fall with their order",
    "difference": "this run's accuracy minus the one it stands beside",
    "difference_high": "upper end of the 95 % interval of `difference`",
    "difference_low": "lower end of the 95 % interval of `difference`",
    "ece": "expected calibration error",
    "error_ceiling": "limit of the mean error, at confidence `level`, whatever the errors are",
    "error_high": "upper end of the interval of `error_mean`",
    "error_limit": "limit of the mean error, at confidence `level`, if no error exceeds `largest`",
    "error_low": "lower end of the interval of `error_mean`",
    "error_mean": "mean absolute error of predicted accuracies",
    "expected_beyond": "how many predicted merges one expects to have a row beyond its bound, at most",
    "fp32_accuracy": "accuracy of the same weights in fp32",
    "gram": "inner product of two task vectors; of one with itself its squared norm",
    "high": "upper end of what `low` begins",
    "largest": "the largest error of a merge that was seen or expected anywhere",
    "largest_logit_difference": "largest difference of a logit between the precisions",
    "level": "coverage of the intervals in the row",
    "low": "lower end: of the plateau of best scales, or of the interval of `value`",
    "mean_logit_difference": "mean difference of logits between the precisions",
    "nll": "mean negative log-likelihood of the right class (natural logarithm)",
    "norm_ratio": "norm of the vector of `task_a` by that of `task_b`; null where that is zero",
    "normalized": "mean over tasks of accuracy relative to the task's own expert",
    "normalized_accuracy": "accuracy relative to that of the task's own expert on the same images; null for "
    "the base, for tasks without an expert, and where the expert gets nothing right",
    "normalized_high": "upper end of the 95 % interval of `normalized`",
    "normalized_low": "lower end of the 95 % interval of `normalized`",
    "normalized_min": "the worst subset's `normalized`",
    "overlap": "share of the k strongest left singular directions of a matrix that two task vectors have in "
    "common, mean over the layer's matrices; chance gives k by the number of rows; null where no matrix was "
    "moved by both",
    "prepare_seconds": "what comes before lambda: seconds of statistics, learning and preparation, on the "
    "machine of the run; null where rows were found and not measured",
    "published": "the published number, as a fraction",
    "published_high": "the largest number that the sources of the lineage print",
    "published_low": "the smallest number that the sources of the lineage print",
    "run": "the number of this run, as a fraction",
    "run_high": "upper end of the 95 % interval of `run`",
    "run_low": "lower end of the 95 % interval of `run`",
    "scale": "`point` as a number; null where tasks have coefficients of their own",
    "sign_agreement": "share with equal signs, of weights that both tasks moved; null where there is none",
    "storage_mb": "`bits_per_weight` in MB (10^6 bytes)",
    "test_accuracy": "mean accuracy on test, at the point that validation chose",
    "test_accuracy_high": "upper end of the interval of `test_accuracy`, of coverage `level`",
    "test_accuracy_low": "lower end of the interval of `test_accuracy`: a paired bootstrap over images, "
    "for the given experts and choice",
    "test_normalized": "mean of `normalized_accuracy` on test, over the tasks that have one",
    "test_normalized_high": "upper end of the interval of `test_normalized`, of coverage `level`",
    "test_normalized_low": "lower end of the interval of `test_normalized`, merge and expert "
    "resampled together",
    "together": "accuracy on test of the merge of both tasks, at its chosen point",
    "val_accuracy": "mean accuracy on validation",
    "val_normalized": "mean of `normalized_accuracy` on validation, over the tasks that have one",
    "value": "the value that was measured",
}
_FLAG = {
    "at_edge": "whether the chosen point is the first or last of its sweep: a better one may lie outside",
    "in_subset": "whether the task is one of those merged",
    "inside": "whether the published number lies within the run's interval",
    "interpolated": "whether the row is an estimate, which `bound` limits, and was not measured",
    "met": "whether the choice meets what its study asks; where nothing does, it is what comes nearest",
    "passed": "whether the reduced precision is proven to be within its tolerance",
    "problem": "whether zero-shot accuracy differs from the published one by more than chance",
    "transductive": "whether test images, without their labels, took part in making the merge",
}
_BY_KIND: tuple[tuple[ColumnKind, dict[str, str]], ...] = (
    ("text", _TEXT),
    ("integer", _INTEGER),
    ("number", _NUMBER),
    ("flag", _FLAG),
)

COLUMNS = {
    name: Column(kind=kind, about=about)
    for kind, listed in _BY_KIND
    for name, about in listed.items()
}
"""The columns of all tables, by name; a study may have more of its own."""

_ARROW = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
}
_PANDAS = {"text": "str", "integer": "Int64", "number": "float64", "flag": "boolean"}


def schema_of(names: Iterable[str]) -> pa.Schema:
    """Return the schema of some columns, with their words as metadata.

    Raises:
        KeyError: if there is no such column.
    """
    return _schema({name: COLUMNS[name] for name in names})


def card_columns(card: TableCard) -> dict[str, Column]:
    """Return the columns of a study's own table.

    Raises:
        KeyError: if the card leaves a column to ``COLUMNS`` that is not there.
    """
    return {name: COLUMNS[name] if own is None else own for name, own in card.columns.items()}


def card_schema(card: TableCard) -> pa.Schema:
    """Return the schema of a study's own table, with words as metadata; raises as ``card_columns``."""
    return _schema(card_columns(card))


def words_of(schema: pa.Schema) -> dict[str, str]:
    """Return the words in a schema's metadata, by column."""
    return {field.name: (field.metadata or {}).get(ABOUT, b"").decode() for field in schema}


def csv_types() -> dict[str, str]:
    """Return how pandas reads the columns of a CSV table, by name; others are read as they look."""
    return {name: _PANDAS[column.kind] for name, column in COLUMNS.items()}


def _schema(columns: dict[str, Column]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, _ARROW[column.kind], metadata={ABOUT: column.about.encode()})
            for name, column in columns.items()
        ]
    )
