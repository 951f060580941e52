# `make` alone prints this list. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STAGES ?= prepare,1,2,predict,evaluate

.DEFAULT_GOAL := help
.PHONY: help setup demo sweep test test-slow check format ui runs compare bench nnunet lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## install medexp and its tools into .venv

# uv, because plain pip may take a CPU build of torch from the disk beside which torchvision does not load.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "expected python 3.11 or newer, found none: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## synthetic BraTS cohort -> two-stage fine-tuning -> scores -> report; about three minutes
	$(BIN)/python -m medexp.run

sweep: $(READY)  ## five folds, two stages, scores: make sweep DATASET=brats MODEL=monai_ft ARGS='dataset.roots=[/data/BraTS]'
	$(BIN)/python -m medexp.run -m dataset=$(or $(DATASET),brats) model=$(or $(MODEL),monai_ft) stage=$(STAGES) \
		fold=0,1,2,3,4 $(ARGS)

test: $(READY)  ## the fast suite, by two processes; WORKERS=0 for one
	$(BIN)/python -m pytest -q -m "not slow and not gpu" -n $(or $(WORKERS),2) --dist loadfile

test-slow: $(READY)  ## crash matrices, whole applications, notebooks
	$(BIN)/python -m pytest -q -m "slow and not gpu"

check: $(READY)  ## format, lint, types, import contracts, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict conf
	$(BIN)/codespell README.md CHANGELOG.md docs medexp hydra_plugins conf benchmarks notebooks Makefile pyproject.toml

format: $(READY)  ## put every file into the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ui: $(READY)  ## MLflow on this machine only; OUTPUT=folder for another output_dir
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) --backend-store-uri sqlite:///$(abspath $(or $(OUTPUT),multirun))/mlflow.db

runs: $(READY)  ## the recorded runs; ARGS='dataset=brats state=failed' chooses
	$(BIN)/python -m medexp.runs $(if $(OUTPUT),output_dir=$(OUTPUT)) $(ARGS)

compare: $(READY)  ## compare what was evaluated; DATASET=brats, ARGS='compare.metrics=[dice/WT]'
	$(BIN)/python -m medexp.run stage=compare $(if $(DATASET),dataset=$(DATASET)) $(if $(OUTPUT),output_dir=$(OUTPUT)) $(ARGS)

bench: $(READY)  ## every claim about speed, measured here; peers that are absent are named
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || echo "   exit $$?"; done

nnunet:  ## nnU-Net v2 in its own environment (.venv-nnunet), driven through its commands
	test -x .venv-nnunet/bin/python || $(PYTHON) -m venv .venv-nnunet
	.venv-nnunet/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-nnunet/bin/uv pip install --quiet --python .venv-nnunet/bin/python 'nnunetv2>=2.6'

lock: $(READY)  ## write constraints.txt from what is installed
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | grep -v '^uv==' > constraints.txt

clean:  ## remove caches and builds; runs and environments stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
