# On a fresh machine with Python: `make demo` shows what vec does, `make test` runs its tests.
# `make check` is what CI runs.

PYTHON ?= python3
# A third of the time of tests is waiting for daemons: twice as many processes as a small machine has cores.
WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint format bench recall crash chaos faults fuzz model soak completions clean

$(BIN)/vec: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(BIN)/vec
	$(BIN)/vec demo

test: $(BIN)/vec
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

lint: $(BIN)/vec
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

format: $(BIN)/vec
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The figures of the README, measured here. Not a test: machines differ.
bench: $(BIN)/vec
	$(BIN)/python -m tests.bench

# Looks for inputs that break the daemon, for as long as it is told: MINUTES=600 for a night.
MINUTES ?= 30
fuzz: $(BIN)/vec
	-$(BIN)/python -m pip install --quiet --only-binary :all: --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Looks for wrong answers: every kind of index, on data and queries that mislead it. For a part of it, or to compare with
# another day: .venv/bin/python -m tests.recall --help
recall: $(BIN)/vec
	$(BIN)/python -m tests.recall --door

# Kills the daemon a thousand times while everything goes on, and checks what is there after each start. For the same
# choices again: make crash SEED=…
KILLS ?= 1000
crash: $(BIN)/vec
	$(BIN)/python -m tests.crash --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# A minute with each broker, in which everything between a relay and a source is killed, stopped or cut at random.
SECONDS ?= 60
chaos: $(BIN)/vec
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Draws long sequences of requests, kills and restarts, and compares each answer with that of a model.
model: $(BIN)/vec
	MODEL_EXAMPLES=$(or $(EXAMPLES),100) $(BIN)/pytest tests/model -q -s

# An hour of mixed load: memory, files, descriptors and latencies must not grow. Writes soak.json and soak.svg.
soak: MINUTES = 60
soak: $(BIN)/vec
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

# Every fsync, write and allocation of a scenario fails once, and the power goes off after each call. Takes hours; a part
# of it: .venv/bin/python -m tests.crash.faults --help
faults: $(BIN)/vec
	$(BIN)/python -m tests.crash.faults

completions: $(BIN)/vec
	$(BIN)/python -m tests.cli.completions

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
