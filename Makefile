# make run    a server on port 22133, its queues in ./data
# make test   the test suite, in less than five minutes
# make test-long   what takes longer than that
# make coverage   the test suite, and which lines of darner_core it does not run
# make soak   kill -9 at random moments under load, ROUNDS=20 times; with SECONDS=3600, an hour of load with restarts
# make refused   a disk that refuses writes now and then, ROUNDS=20 times
# make fuzz   what the suite does for seconds, RUNS=n times: the parsers, then a whole server over sockets
# make lock   requirements.txt and requirements-dev.txt from the short lists in pyproject.toml
# All make what they need in .venv first. PYTHON=python3.12 make test takes another Python (3.11 or newer).

PYTHON ?= python3
PORT ?= 22133
RUNS ?= 100000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(UPGRADE)

.PHONY: run test test-long coverage soak refused fuzz style types check lock clean

run: $(VENV)/server-installed
	$(BIN)/darner --port $(PORT)

test: $(VENV)/all-installed
	$(BIN)/python -m pytest

test-long: $(VENV)/all-installed
	$(BIN)/python -m pytest -m long

coverage: $(VENV)/all-installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

ifdef SECONDS
soak: $(VENV)/all-installed
	$(BIN)/python -m loadtest.crash.soak --seconds $(SECONDS)
else
soak: $(VENV)/all-installed
	$(BIN)/python -m loadtest.crash.kill --rounds $(or $(ROUNDS),20)
	$(BIN)/python -m loadtest.crash.together --rounds $(or $(ROUNDS),20)
endif

refused: $(VENV)/all-installed
	$(BIN)/python -m loadtest.crash.refused --rounds $(or $(ROUNDS),20)

fuzz: $(VENV)/all-installed
	$(BIN)/python -m tests.fuzz.fuzz_protocol -runs=$(RUNS)
	$(BIN)/python -m tests.fuzz.fuzz_kestrel -runs=$(RUNS)
	$(BIN)/python -m tests.fuzz.fuzz_server --runs $(RUNS)

style: $(VENV)/all-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/all-installed
	$(BIN)/mypy

check: test style types

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*

# A .venv without this file was left half made, and is made again from the beginning.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The server alone: gevent and rocksdict, in the versions that requirements.txt pins.
$(VENV)/server-installed: $(VENV)/made requirements.txt pyproject.toml $(shell find darner_core -name "*.py")
	@echo "Installing the server into $(VENV); the first time this takes about 15 seconds."
	$(PIP) --constraint requirements.txt .
	@touch $@

# Everything: the server, the tests, the load tests.
$(VENV)/all-installed: $(VENV)/made requirements.txt requirements-dev.txt
	@echo "Installing all that tests and load tests need into $(VENV), 530 MB; the first time this takes about a minute."
	$(PIP) --requirement requirements.txt --requirement requirements-dev.txt
	@touch $@

# Versions move on only with UPGRADE=--upgrade.
lock: $(VENV)/made
	$(PIP) uv==0.13.9
	$(LOCK) --group requirements --output-file requirements.txt
	$(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt
