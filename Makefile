# Every target makes its own environment when there is none. Needs Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Two torch threads on a busy machine are far slower than one.
export OMP_NUM_THREADS = 1
export OMP_WAIT_POLICY = passive
# Test processes side by side; a module's tests stay in one.
JOBS ?= 2

.PHONY: quickstart test test-all check format docs clean

quickstart: $(VENV)/.installed
	$(BIN)/python experiments/quickstart.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations=10

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations=20 -m "not gpu" --timeout=7200

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation, into build/site; a warning is an error.
# With its search: python -m http.server --directory build/site
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
