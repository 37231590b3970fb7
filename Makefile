# make up      run attn on this machine (ARGS="--port 9000" passes flags)
# make test    the whole test suite (ARGS="-k feed" passes flags to pytest)
# make check   linters, types, import rules and schemas (make static) beside the fast tests (make fast); before a commit
# make laws    property tests only, with new random examples, TIMES=20 times as many as in `make test`
# make bench   benchmarks of attn against named baselines; bench-pipeline, bench-writes ... run one of them
# make chaos   kills, pauses and slows processes on Apache Kafka, then compares with the model (SEED=, MINUTES=, ARGS=)
# make update  writes the newest versions that pyproject.toml allows to requirements/ (make lock: only changed ones)
# make fuzz    random source events (ARGS=events) or damaged record batches (ARGS=records, ARGS="records --broker"), for MINUTES
# make schemas writes JSON Schemas of all topics, OpenAPI and AsyncAPI to schemas/json, and docs/settings.md

# The first interpreter that runs and has a supported version: shims of version managers may not run.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for each in python3.12 python3.13 python3.11 python3 python; do \
  $$each -c '$(FITS)' >/dev/null 2>&1 && echo $$each && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

STATIC := $(addprefix static-,style types imports packages schemas)
BENCHES := $(addprefix bench-,pipeline recovery feed edge events writes latency decisions sessions history insights idle traces large failover capacity)

# Without compiled modules, each process spends 2 s of CPU on compiling its libraries again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up test check fast static $(STATIC) laws update lock schemas bench $(BENCHES) chaos fuzz hooks clean

up: $(READY)
	@$(BIN)/attn up $(ARGS)

# A file of tests at a time in each of four processes, which wait for half of their time; long files first (conftest.py).
test: $(READY)
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --hypothesis-profile=fixed $(ARGS)

# The static checks run beside the tests; their output follows. Both must succeed.
check: $(READY)
	@$(MAKE) --no-print-directory -k static >$(VENV)/static.log 2>&1 & static=$$!; \
	$(MAKE) --no-print-directory fast; tests=$$?; \
	wait $$static; static=$$?; cat $(VENV)/static.log; exit $$((tests + static))

# What needs no other program than Python and node. The random requests of test_openapi.py take a minute of CPU.
fast: $(READY)
	@ATTN_TEST_TIMES=0.4 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder \
	  -m "not kafka and not browser and not clickhouse and not slow" --ignore tests/contract/http/test_openapi.py \
	  tests/unit tests/contract tests/integration/edge/test_edge_path.py $(ARGS)

static: $(READY) $(STATIC)

static-style:
	@$(BIN)/ruff check

static-types:
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file clients/python/pyproject.toml

static-imports:
	@$(BIN)/lint-imports

static-packages:
	@$(BIN)/deptry schemas streams api ops
	@$(BIN)/deptry tests --exclude '\.venv' --exclude 'tests/data' --ignore DEP002,DEP004  # data: scripts for environments of peers

static-schemas:
	@$(BIN)/attn schemas --check

TIMES ?= 20

laws: $(READY)
	@ATTN_TEST_TIMES=$(TIMES) $(BIN)/python -m pytest -q -n 2 -m hypothesis tests/unit $(ARGS)

# For all supported Pythons and platforms, with hashes, and without the URL of an index.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
  --custom-compile-command 'make update'

lock: $(READY)
	@$(LOCK) --all-extras --group build --output-file requirements/dev.txt pyproject.toml
	@$(LOCK) --constraints requirements/dev.txt --extra traces --output-file requirements/run.txt pyproject.toml
	@$(LOCK) --constraints requirements/dev.txt --output-file requirements/build.txt --group build

update: UPGRADE := --upgrade
update: lock

schemas: $(READY)
	@$(BIN)/attn schemas
	@$(BIN)/python -m ops.cli.settings_docs > docs/settings.md

bench: $(BENCHES)

$(BENCHES): bench-%: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m bench $* $(ARGS)

SEED ?= 1
MINUTES ?= 2

chaos: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m chaos --seed $(SEED) --minutes $(MINUTES) $(ARGS)

fuzz: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(or $(ARGS),events) --minutes $(MINUTES)

hooks: $(READY)
	@$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# uv takes a tenth of pip's time but ignores pip's configuration. If uv cannot reach the index, pip is tried.
$(READY): pyproject.toml requirements/build.txt requirements/dev.txt
	@$(or $(PYTHON),false) -c '$(FITS)' \
	  || { echo "attn needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV) (once, a minute or two)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --requirement requirements/build.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt \
	  || $(PIP) --require-hashes --requirement requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
