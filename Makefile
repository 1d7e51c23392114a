# The verbs a person types. `make run` and `make test` do all their own set-up.

PYTHON ?= python3
export PYTHON
CORES ?= all
RUNS ?= 20
PORT ?= 5000
SEED ?= 0
# Which torch is installed: full (as the lock file says), cpu or slim; see docs/install.md.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Not the program of that name: its first line names a Python, and breaks where that has a blank in it.
SNAKEMAKE := python -m snakemake

.PHONY: help run plan status doctor test test-slurm test-tutorial chaos check bench peers ui mlflow-server report docs lock audit sbom clean

help:
	@echo 'make run     the configured grid, to figures, tables, report and registry'
	@echo '            (TORCH=cpu in a fresh clone: torch without CUDA; docs/install.md)'
	@echo 'make plan    what `make run` would do now, how long that takes, and why'
	@echo 'make status  what is done, what is stale and why, what runs, the hours so far and to go'
	@echo 'make doctor  what the experiment needs, and what of it is missing'
	@echo 'make report  results/report.html, and results/provenance.html: how it was computed'
	@echo 'make test    everything that can be tested without a GPU or a cluster'
	@echo 'make test-slurm  a grid on a SLURM cluster of its own (root, Debian; else it skips)'
	@echo 'make test-tutorial  docs/tutorial.md to the letter (minutes)'
	@echo 'make chaos   RUNS runs (20) that are killed at random moments, a full and a slow disk: each must end the same'
	@echo 'make check   linters and type checks'
	@echo 'make bench   speed, as ratios in one run (about an hour on two cores)'
	@echo 'make peers   mergekit and FusionBench, in .venv-peers, and merges against theirs'
	@echo 'make ui      the MLflow pages of results/mlflow.db, on http://127.0.0.1:5000 (or PORT=)'
	@echo 'make mlflow-server   an MLflow server on http://127.0.0.1:5000, for trying (docs/registry.md)'
	@echo 'make docs    the documentation site, site/index.html; links and names are checked'
	@echo 'make lock    pin the newest versions that pyproject.toml allows'
	@echo 'make audit   ask which pinned packages have known vulnerabilities'
	@echo 'make sbom    what is pinned as a CycloneDX document, sbom.json'
	@echo 'make clean   remove the virtual environments and .slurm (results stay)'

# What is said beside it is in results/logs/run.log (docs/terminal.md).
LOGGED := $(SNAKEMAKE) --logger taskgrid

run: $(READY)
	@$(LOGGED) --cores $(CORES)
	@$(MAKE) --no-print-directory results/provenance.html
	@python -m taskgrid.workflow.terminal.ending

plan: $(READY)
	@$(LOGGED) --cores $(CORES) --dry-run

status: $(READY)
	@$(LOGGED) --cores $(CORES) --dry-run --logger-taskgrid-show status

doctor: $(READY)
	@$(LOGGED) --cores 1 doctor

# The report is an output like any other; how it was computed is told by Snakemake, once all is there.
report: $(READY)
	@$(LOGGED) --cores $(CORES) results/report.html
	@$(MAKE) --no-print-directory results/provenance.html

results/provenance.html: $(READY) $(wildcard results/tables/* results/figures/*)
	@echo 'writing $@'
	@$(SNAKEMAKE) --cores 1 --report $@ --quiet all

test: $(READY)
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/workflow tests/browser tests/unit tests/peers

# SLURM is unpacked into .slurm, not installed.
test-slurm: $(READY)
	python -m pytest tests/slurm -m slurm

test-tutorial: $(READY)
	python -m pytest tests/workflow/test_tutorial.py -m tutorial

chaos: $(READY)
	python -m tests.chaos --runs $(RUNS) --seed $(SEED)

check: $(READY)
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile rules
	$(SNAKEMAKE) --lint

# The last two read the finished embedded default; see benchmarks/README.md for GPUs and larger models.
bench: $(READY)
	python benchmarks/engine.py limit
	python benchmarks/engine.py limit --architecture ViT-B-32-quickgelu --images 64 --batch-size 32 --points 4 --turns 3
	python benchmarks/engine.py naive --images 200 --threads 2
	python benchmarks/engine.py naive --images 200 --workers 0
	python benchmarks/tangent.py --images 8 --points 200
	python benchmarks/merging.py
	python benchmarks/lattice.py
	python benchmarks/methods.py
	python benchmarks/finetuning.py
	python benchmarks/alignment.py
	python benchmarks/workflow.py
	python benchmarks/workflow.py finished
	python benchmarks/scale.py
	python benchmarks/reuse.py
	python benchmarks/interpolation.py results
	python benchmarks/anova.py results --lambdas 0.30

# The programs that merges are compared with, apart from taskgrid's own packages.
peers: $(READY)
	python benchmarks/environment.py
	python benchmarks/peers.py

# On the runs: MLflow's own front page is for language models.
ui: $(READY)
	python -m taskgrid.tracking.mlflow_pages --port $(PORT)

mlflow-server: $(READY)
	python -c 'import psycopg' 2>/dev/null || python -m pip install --quiet --disable-pip-version-check 'psycopg[binary]>=3.2,<4'
	python profiles/mlflow-server/start.py

# An environment of its own, made in seconds: the site is built from the sources, which nothing imports. Not
# --quiet, by which MkDocs would let warnings pass.
DOCS := .venv-docs

docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build
	@echo 'documentation: site/index.html  its search wants a server: python3 -m http.server --directory site'

$(DOCS)/.ready: requirements-docs.lock
	"$$PYTHON" -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

UV := $(BIN)/uv

$(UV): $(READY)
	python -m pip install --quiet --disable-pip-version-check uv

COMPILE := uv pip compile --universal --python-version 3.11 --no-annotate --no-header --generate-hashes --upgrade

lock: $(UV)
	$(COMPILE) pyproject.toml --extra dev --output-file requirements.lock
	$(COMPILE) --group docs --output-file requirements-docs.lock

# Each in an environment of its own, for their dependencies are not ours. Without --strict, an index that
# tells nothing of a package counts as one that knows no vulnerability.
audit: $(UV)
	uvx --from 'pip-audit>=2.10,<3' pip-audit --strict --requirement requirements.lock --requirement requirements-docs.lock --require-hashes --disable-pip

sbom: $(UV)
	uvx --from 'cyclonedx-bom>=7,<8' cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file sbom.json

clean:
	rm -rf $(VENV) $(DOCS) .venv-peers .slurm site

$(READY): requirements.lock pyproject.toml
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'taskgrid needs Python 3.11 or newer: make run PYTHON=python3.12'; exit 1; }
	"$$PYTHON" -m venv $(VENV)
	python -m tools.install --build '$(TORCH)' --index '$(TORCH_INDEX)'
	python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
