# The same commands for a person, a hook and the continuous integration.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test check nightly bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/secateur demo --out out/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

nightly: setup
	$(BIN)/pytest -m nightly

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check '.[bench]'
	$(BIN)/python -m benchmarks.engine --quick

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) out .pytest_cache .ruff_cache
