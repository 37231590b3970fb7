# make up      everything on this machine (ARGS="--port 9000" for flags)
# make test    the whole test suite (ARGS="-k feed" for pytest's)
# make check   linters, types, import rules, schemas, and the fast tests: what to run before a commit
# make bench   what attn costs beside named baselines; bench-pipeline and bench-feed alone
# make schemas JSON Schemas of all topics into schemas/json

# The first that runs and fits: a version manager may have names for what it does not have.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for each in python3.12 python3.11 python3 python; do \
  $$each -c '$(FITS)' >/dev/null 2>&1 && echo $$each && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: up test check schemas bench bench-pipeline bench-feed bench-history hooks clean

up: $(READY)
	@$(BIN)/attn up $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/attn schemas --check
	@$(BIN)/python -m pytest -q tests/unit tests/contract tests/integration/test_edge_path.py $(ARGS)

schemas: $(READY)
	@$(BIN)/attn schemas

bench: bench-pipeline bench-feed bench-history

bench-pipeline bench-feed bench-history: bench-%: $(READY)
	@$(BIN)/python -m ops.bench $* $(ARGS)

hooks: $(READY)
	@$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml
	@$(or $(PYTHON),false) -c '$(FITS)' \
	  || { echo "attn needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV) (once, a few minutes)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,test,bench,dev]'
	@touch $@
