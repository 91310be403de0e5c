# Two commands do everything: `make up` (set up and make a firewalled instance of this repository) and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The tests of the pure part, without root and without namespaces; pyproject.toml says which files they must cover.
PURE := $(wildcard tests/netpolicy/test_*.py) tests/netpolicy/dns

.PHONY: help up test coverage lint format bench lock clean

help:
	@echo 'make up        set up, then make a firewalled instance of this repository (root, or a user of Docker)'
	@echo 'make test      set up, then run every test (root: they use network namespaces and a Docker engine of their own)'
	@echo 'make coverage  the tests of the pure part, which must pass through every branch of it'
	@echo 'make lint      formatting, lint and strict types'
	@echo 'make bench     the benchmarks, as tables'
	@echo 'make lock      write the lock files anew from pyproject.toml'
	@echo 'make clean     remove what these commands made in this folder'

# The environment is made from the lock file, hashes checked. The stamp makes a second run free.
$(VENV)/.ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: Python 3.11 or newer is needed (PYTHON=/path/to/python make ...)' >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'installing the Debian package python3-venv, which making a virtual environment needs'; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else echo 'error: Python has no venv module; install the package python3-venv' >&2; exit 3; fi; }
	@echo 'setting up $(VENV) from requirements-dev.lock'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

up: $(VENV)/.ready
	@$(BIN)/cspace engine install
	@$(BIN)/cspace up mercury --no-claude
	@command -v cspace >/dev/null || printf '\ncspace and netpolicy are in %s; to type them:\n  export PATH="%s:$$PATH"\n' '$(BIN)' '$(CURDIR)/$(BIN)'

test: $(VENV)/.ready
	@tests/support/system-packages.sh
	@$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/.ready
	@$(BIN)/coverage run -m pytest -q --hypothesis-seed=0 $(PURE) $(ARGS)
	@$(BIN)/coverage report

lint: $(VENV)/.ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.ready
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

bench: $(VENV)/.ready
	@tests/support/system-packages.sh
	@for bench in benchmarks/[a-z]*.py; do echo; $(BIN)/python "$$bench"; done

lock:
	@$(BIN)/pip install -q uv
	@$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate -q -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --no-annotate -q -o requirements-dev.lock
	@printf 'dnspython\npyroute2\n' | $(BIN)/uv pip compile - -c requirements.lock --universal --generate-hashes \
	  --no-header --no-annotate -q -o lib/templates/gate/requirements.lock

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist
