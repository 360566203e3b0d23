# Everything runs in its own virtual environment, made on first use. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help train test test-long check format docs bench clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(VENV)/.installed  ## Train a classifier on scanned digits; writes out/
	$(BIN)/python examples/train_digits.py --out out

test: $(VENV)/.installed  ## Run the tests
	$(BIN)/python -m pytest -n $(JOBS) -m 'not long'

test-long: $(VENV)/.installed  ## Run the long tests as well
	$(BIN)/python -m pytest -n $(JOBS)

check: $(VENV)/.installed  ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error

format: $(VENV)/.installed  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed  ## Build the documentation into docs/_build
	$(BIN)/sphinx-build -W -q docs docs/_build

bench: $(VENV)/.installed  ## Time gradtx beside its peers
	$(BIN)/python benchmarks/run.py

clean:  ## Remove the environment and everything generated
	rm -rf $(VENV) out docs/_build docs/reference .pytest_cache .ruff_cache
