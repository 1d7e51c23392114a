"""Where results lie, as patterns: what the rules make, and settings and listings refer to.

``{mode}`` of an expert or a vector is the mode that it was trained in; that of an evaluation may be
another one (`Experiment.experts_of`).
"""

from __future__ import annotations

DOWNLOAD = "results/downloads/{task}.json"
DATASET = "results/data/{pixels}/{task}/dataset.json"
ORIGINALS = "results/data/{pixels}/{task}/train.arrow"
IMAGES = "results/data/{pixels}/{task}/images.arrow"
SPLIT = "results/splits/{pixels}/{task}.json"

CARD = "results/models/{model}/base.json"
BASE = "results/models/{model}/base.safetensors"
HEAD = "results/heads/{model}/{task}.safetensors"
HEAD_MANIFEST = "results/heads/{model}/{task}.json"

_EXPERT = "results/experts/{model}/{mode}/{seed}/{task}"
EXPERT = f"{_EXPERT}/expert.safetensors"
EXPERT_MANIFEST = f"{_EXPERT}/expert.json"
EXPERT_RECORD = f"{_EXPERT}/run.json"
HISTORY = f"{_EXPERT}/history.parquet"
VERIFIED = f"{_EXPERT}/verified.json"

VECTOR = "results/vectors/{model}/{mode}/{seed}/{task}.safetensors"
VECTOR_MANIFEST = "results/vectors/{model}/{mode}/{seed}/{task}.json"
CONFLICTS = "results/vectors/{model}/{mode}/{seed}/conflicts.parquet"

ALIGNMENT = "results/alignments/{model}/{mode}/{seed}/{of}.safetensors"
ALIGNMENT_MANIFEST = "results/alignments/{model}/{mode}/{seed}/{of}.json"

STATISTIC = "results/statistics/{model}/{mode}/{seed}/{label}/{task}.safetensors"
STATISTIC_MANIFEST = "results/statistics/{model}/{mode}/{seed}/{label}/{task}.json"
STATISTIC_TIMING = "results/statistics/{model}/{mode}/{seed}/{label}/{task}.timing.json"
BASE_STATISTIC = "results/statistics/{model}/base/{label}.safetensors"
BASE_STATISTIC_MANIFEST = "results/statistics/{model}/base/{label}.json"
BASE_STATISTIC_TIMING = "results/statistics/{model}/base/{label}.timing.json"

_LEARNED = "results/learned/{model}/{mode}/{seed}/{method}/{subset}"
LEARNED = f"{_LEARNED}/coefficients.json"
LEARNED_TENSORS = f"{_LEARNED}/tensors.safetensors"
LEARNED_TIMING = f"{_LEARNED}/timing.json"

PROOF = "results/eval/{model}/{mode}/{seed}/precision.json"
REFERENCE_ROWS = "results/eval/{model}/{mode}/{seed}/reference/rows.parquet"
MARGINS = "results/eval/{model}/{mode}/{seed}/margins.parquet"

_BLOCK = "results/eval/{model}/{mode}/{seed}/{method}/{block}"
BLOCK_ROWS = f"{_BLOCK}/rows.parquet"
BLOCK_RECORD = f"{_BLOCK}/run.json"
BLOCK_PLAN = "results/merge/{model}/{mode}/{seed}/{method}/{block}.json"
BLOCK_TIMING = f"{_BLOCK}/timing.json"
BLOCK_CHOICES = f"{_BLOCK}/choices.json"
CONTINUOUS = f"{_BLOCK}/continuous.parquet"

_LATTICE = "results/eval/{model}/{mode}/{seed}/{method}/lattice"
LATTICE_ROWS = f"{_LATTICE}/rows.parquet"
LATTICE_REPORT = f"{_LATTICE}/report.json"

_REGISTERED = "results/registered/{model}/{mode}/{seed}"
REGISTERED_EXPERT = f"{_REGISTERED}/expert/{{task}}/open_clip_config.json"
REGISTERED_MERGE = f"{_REGISTERED}/merge/{{method}}/open_clip_config.json"

FIGURE = "results/figures/{figure}.{suffix}"
SELECTED = "results/tables/selected.parquet"
STUDY_MEASURED = "results/{measured}/{model}/{mode}/{seed}/{study}/{table}.parquet"
STUDY_TABLE = "results/tables/{study}/{table}.parquet"
PRECISION_TABLE = "results/tables/precision.csv"
SUMMARY = "results/tables/summary.csv"
