# make up      everything on this machine (ARGS="--port 9000" for flags)
# make test    the whole test suite (ARGS="-k feed" for pytest's)
# make check   linters, types, import rules, schemas, and the fast tests: what to run before a commit
# make laws    the properties alone, with other examples each time, TIMES=20 times as many: to hunt for faults
# make fuzz   records made at random until something breaks (MINUTES=, ARGS="events --seed 7")
# make bench   what attn costs beside named baselines; bench-pipeline, bench-writes ... alone
# make chaos  everything killed, paused and starved on real Kafka, then compared with the model (SEED=, MINUTES=, ARGS=)
# make fuzz    Kafka record batches that know the format, broken in all ways (MINUTES=, ARGS="--broker" for a real worker)
# make schemas JSON Schemas of all topics, OpenAPI and AsyncAPI, into schemas/json; docs/settings.md

# The first that runs and fits: a version manager may have names for what it does not have.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for each in python3.12 python3.11 python3 python; do \
  $$each -c '$(FITS)' >/dev/null 2>&1 && echo $$each && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

BENCHES := $(addprefix bench-,pipeline recovery feed edge writes history insights)

.PHONY: up test check laws schemas bench $(BENCHES) chaos fuzz hooks clean

up: $(READY)
	@$(BIN)/attn up $(ARGS)

# A file of tests at a time in each of three processes: they wait for half of their time.
test: $(READY)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --max-worker-restart 0 --hypothesis-profile=fixed $(ARGS)

check: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/attn schemas --check
	@ATTN_TEST_TIMES=0.4 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not kafka" tests/unit tests/contract tests/integration/test_edge_path.py $(ARGS)

TIMES ?= 20

laws: $(READY)
	@ATTN_TEST_TIMES=$(TIMES) $(BIN)/python -m pytest -q -n 2 -m hypothesis tests/unit $(ARGS)

schemas: $(READY)
	@$(BIN)/attn schemas
	@$(BIN)/python -m ops.settings_page > docs/settings.md

fuzz: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(or $(ARGS),events) --minutes $(MINUTES)

bench: $(BENCHES)

$(BENCHES): bench-%: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m bench $* $(ARGS)

SEED ?= 1
MINUTES ?= 2

chaos: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

fuzz: $(READY)
	@cd tests && $(abspath $(BIN))/python -m support.fuzz_records --minutes $(MINUTES) $(ARGS)

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
