# `make` alone lists the targets. Each target first makes the part of .venv that it needs.

PYTHON ?= python3
PORT ?= 22133
HTTP ?= 127.0.0.1:22180
RUNS ?= 100000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(UPGRADE)

.PHONY: help run test test-long coverage soak refused fuzz style types smoke check lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 16
	@echo
	@echo 'PYTHON=python3.12 make test takes another Python; 3.11 or newer is needed.'

run: $(VENV)/server-installed ## a server on port 22133, HTTP on 22180, queues in ./data; PORT=22134, ARGS="--debug"
	$(BIN)/darner --port $(PORT) --http $(HTTP) $(ARGS)

test: $(VENV)/all-installed ## the test suite, in less than five minutes
	$(BIN)/python -m pytest

test-long: $(VENV)/all-installed ## the tests that are too long for the suite
	$(BIN)/python -m pytest -m long

coverage: $(VENV)/all-installed ## the test suite, and which lines of darner_core it does not run
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

ifdef SECONDS
soak: $(VENV)/all-installed ## kill -9 at random moments under load, ROUNDS=20; or SECONDS=3600 of load with restarts
	$(BIN)/python -m loadtest.crash.soak --seconds $(SECONDS)
else
soak: $(VENV)/all-installed
	$(BIN)/python -m loadtest.crash.kill --rounds $(or $(ROUNDS),20)
	$(BIN)/python -m loadtest.crash.together --rounds $(or $(ROUNDS),20)
	$(BIN)/python -m loadtest.crash.jobs --rounds $(or $(ROUNDS),20)
	$(BIN)/python -m loadtest.crash.doors --rounds $(or $(ROUNDS),20)
endif

refused: $(VENV)/all-installed ## a disk that refuses writes now and then, ROUNDS=20
	$(BIN)/python -m loadtest.crash.refused --rounds $(or $(ROUNDS),20)

fuzz: $(VENV)/all-installed ## random input to the parsers and to a whole server, RUNS=100000
	$(BIN)/python -m tests.fuzz.fuzz_protocol -runs=$(RUNS)
	$(BIN)/python -m tests.fuzz.fuzz_kestrel -runs=$(RUNS)
	$(BIN)/python -m tests.fuzz.fuzz_resp -runs=$(RUNS)
	$(BIN)/python -m tests.fuzz.fuzz_server --runs $(RUNS)
	if command -v beanstalkd >/dev/null; then $(BIN)/python -m tests.fuzz.fuzz_beanstalkd --runs $(RUNS); fi

style: $(VENV)/all-installed ## check with ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/all-installed ## check with mypy
	$(BIN)/mypy

smoke: $(VENV)/made ## install, start and stop the server with this Python, and with 3.12 and 3.13 if they are here
	.ci/smoke $(BIN)/python

check: style types test smoke ## the checks that every change has to pass; .ci/run runs these and test-long

clean: ## remove .venv, and everything that tools leave behind
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*

# A .venv without this file was left half made, and is made again from the beginning.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The server with its extra for HTTP, in the versions that the requirements pin.
$(VENV)/server-installed: $(VENV)/made requirements.txt requirements-dev.txt pyproject.toml $(shell find darner_core -name "*.py")
	@echo "Installing the server into $(VENV); the first time this takes about 15 seconds."
	$(PIP) --constraint requirements.txt --constraint requirements-dev.txt '.[http,ctl]'
	@touch $@

# Everything: the server, the tests, the load tests.
$(VENV)/all-installed: $(VENV)/made requirements.txt requirements-dev.txt
	@echo "Installing all that tests and load tests need into $(VENV), 530 MB; the first time this takes about a minute."
	$(PIP) --requirement requirements.txt --requirement requirements-dev.txt
	@touch $@

lock: $(VENV)/made ## pin requirements*.txt anew from pyproject.toml; newer versions only with UPGRADE=--upgrade
	$(PIP) uv==0.13.9
	$(LOCK) --group requirements --output-file requirements.txt
	$(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt
