# Each group of tools is installed on first use, into one virtual environment. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := .venv-floor
JOBS ?= auto
TESTS ?=
BENCH ?= bench
ARGS ?=
INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test test-long test-floor test-optax check format docs bench clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.extra-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(FLOOR)/.installed: pyproject.toml constraints-floor.txt
	$(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/python $(INSTALL) --constraint constraints-floor.txt --editable '.[test]'
	@touch $@

train: $(VENV)/.extra-examples  ## Train a classifier on scanned digits; writes out/
	$(BIN)/python examples/train_digits.py --out out

test: $(VENV)/.extra-test  ## Run the tests; TESTS=FILE runs some
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not long' $(TESTS)

test-long: $(VENV)/.extra-test  ## Run the long tests as well, and compile every program as users do
	XLA_FLAGS=--xla_force_host_platform_device_count=2 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)

test-floor: $(FLOOR)/.installed  ## Run the tests with the oldest JAX and NumPy that are supported
	$(FLOOR)/bin/python -m pytest -n $(JOBS) --dist worksteal -m 'not long' $(TESTS)

test-optax: $(VENV)/.extra-test  ## Run optax's own tests with gradtx in optax's place
	$(BIN)/python tests/optax_suite.py $(ARGS)

check: $(VENV)/.extra-dev  ## Format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error

format: $(VENV)/.extra-dev  ## Format, fix what can be fixed, list the optimizers in the README
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/names.py

docs: $(VENV)/.extra-docs  ## Build the documentation into docs/_build
	$(BIN)/sphinx-build -W -q docs docs/_build

bench: $(VENV)/.extra-$(BENCH)  ## Time gradtx beside its peers; BENCH=bench-torch installs torch as well, ARGS="--all"
	$(BIN)/python -m benchmarks.run $(ARGS)

clean:  ## Remove the environments and everything generated
	rm -rf $(VENV) $(FLOOR) out docs/_build docs/reference .pytest_cache .ruff_cache .mypy_cache .hypothesis
