# Everything that a developer or CI runs. `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
# Without bytecode: Python itself compiles what it imports, at the first time, and most of this is never imported.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
# Test files side by side, each with a Kafka and a Postgres of its own: most of them wait for something.
JOBS ?= 3
PACKAGES := schemas streams projections agents deploy cli
# What a fresh Debian or Ubuntu lacks for the embedded Kafka, the virtual environment and the compiled modules.
APT := apt-get install -y openjdk-17-jre-headless maven make gcc python3-dev python3-venv
# Where this is set each process compiles all of its Python again: a worker's start takes 2.7 s instead of 1.1 s.
export PYTHONDONTWRITEBYTECODE :=
# Begun first, so that no single one of them is left over at the end.
LONGEST := $(patsubst %,tests/%.py,acceptance/test_image integration/test_replay acceptance/test_faults \
  integration/test_stack acceptance/test_chaos_run)
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-annotate --no-header
# $(call install,FOLDER,LOCK): what a lock file names, into a virtual environment.
# uv takes 3 s for what takes pip a minute, from the same index. Where it can't be had or doesn't get through, pip does it.
define install
@index=$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null || echo https://pypi.org/simple)}; \
$(PIP) --require-hashes -r installer.lock \
  && UV_DEFAULT_INDEX=$$index UV_LINK_MODE=copy \
    $(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2) \
  || $(1)/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $(2)
endef
COMPILED := $(shell sed -nE 's|^    "([a-z]+/[a-z_]+\.py)",$$|\1|p' setup.py)

.PHONY: help setup demo up down status test lint types unit bench chaos lock clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10 | sort

setup: .venv/.compiled ## Install everything into .venv, again when what it is made of has changed

.venv/.complete: requirements.lock installer.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { got=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || true); \
	       echo "error: Python 3.11 or newer is needed, got $${got:-no $(PYTHON)}. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "error: Python's venv is needed: $(APT)" >&2; exit 1; }
	@# As `sitelog up` finds it. JAVA_TOOL_OPTIONS puts a line of its own before the version.
	@java=$$({ "$${JAVA_HOME:+$$JAVA_HOME/bin/}java" -version 2>&1 || true; } | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -1); \
	  [ "$${java:-0}" -ge 17 ] \
	  || { echo "error: Java 17 or newer is needed to run Kafka, got $${java:-none}: $(APT), or point JAVA_HOME at one" >&2; exit 1; }
	@command -v mvn >/dev/null \
	  || { echo "error: Maven is needed to fetch Kafka: $(APT)" >&2; exit 1; }
	@command -v gcc >/dev/null && $(PYTHON) -c \
	    'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	  || { echo "error: gcc and Python's headers are needed to compile what runs for every event: $(APT)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: no virtual environment with $(PYTHON): $(APT)" >&2; exit 1; }
	$(call install,.venv,requirements.lock)
	@# mypy doesn't follow an editable install's import hooks; it follows links.
	@mkdir -p .typing/sitelog && for package in $(PACKAGES); do ln -sfn "../../$$package" ".typing/sitelog/$$package"; done
	@touch $@

.venv/.compiled: .venv/.complete setup.py $(COMPILED)
	PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# Python programs that the benchmark compares Sitelog with, apart from the project's own: it asks for them when it needs them.
.peers/.complete: tests/benchmarks/peers.lock .venv/.complete
	@$(PYTHON) -m venv .peers || { rm -rf .peers; echo "error: no virtual environment with $(PYTHON): $(APT)" >&2; exit 1; }
	$(call install,.peers,tests/benchmarks/peers.lock)
	@touch $@

demo: setup ## Start everything, append the life of 12,579 real sites, and check every count
	$(BIN)/sitelog demo

up: setup ## Start Kafka, Postgres and the worker on this machine
	$(BIN)/sitelog up

down: setup ## Stop what `make up` or `make demo` has started; the data stays
	$(BIN)/sitelog down

status: setup ## Say what is running, and where
	$(BIN)/sitelog status

test: ## Run every check and every test, on real Kafka and Postgres
	@# The first time, lint and types are checked on one core while what is compiled is compiled on the other.
	@$(MAKE) --no-print-directory -j2 setup lint types
	@# In this order: xdist by itself would begin with the files of the most tests.
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(LONGEST) tests

unit: setup ## Run the tests that need no services: seconds
	$(BIN)/pytest -m 'not services'

lint: .venv/.complete ## Check style, format and which package imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=.typing $(BIN)/lint-imports
	$(BIN)/yamllint --strict compose.yaml deploy/config deploy/kubernetes deploy/monitoring .yamllint.yaml .pre-commit-config.yaml

types: .venv/.complete ## Check the types, strictly
	MYPYPATH=.typing $(BIN)/mypy --cache-dir .mypy_cache/types

bench: setup ## Measure Sitelog, its peers and a hand-written loop on the same events: docs/benchmarks.md has the figures
	$(BIN)/python -m tests.benchmarks $(ARGS)

chaos: setup ## Break workers, brokers, Postgres and the network for three minutes, and check every event and every row
	$(BIN)/python -m tests.chaos $(ARGS)

lock: setup ## Write the lock files; what is locked keeps its version, or ARGS=--upgrade takes the newest that fit
	@# What `make setup` installs the rest with.
	echo uv | $(LOCK) $(ARGS) - -o installer.lock
	$(LOCK) $(ARGS) --all-extras --group dev pyproject.toml -o requirements.lock
	@# What the image holds: the same versions, without what only tests and the embedded services need.
	$(LOCK) $(ARGS) --extra tracing --constraint requirements.lock pyproject.toml -o deploy/docker/requirements.lock
	@# What the benchmark's peers need, with their own pins.
	printf '%s\n' 'quixstreams[postgresql]' fastavro mypy-extensions pydantic pyyaml typer \
	  | $(LOCK) $(ARGS) - -o tests/benchmarks/peers.lock

clean: ## Stop the services, and remove what can be made again; the data in .sitelog stays
	@if [ -d .sitelog ] && [ -x $(BIN)/sitelog ]; then $(BIN)/sitelog down; fi
	rm -rf .venv .peers .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name "*.cpython-*.so" -not -path "./.venv/*" -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
