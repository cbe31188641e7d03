# make run    environment, demo datastore and server; prints what to open
# make test   every check; under five minutes on two cores
# make test-long  tests that repeat much to find what is rare: property tests at length, hundreds of killed writers
# make format, make lock, make clean
#
# Needs make and Python 3.11 or newer with venv. PYTHON=/path/to/python names another one.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := run

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DATASTORE ?= demo-datastore

.PHONY: run
run: $(VENV)/.run-ready
	$(BIN)/codweb demo $(DATASTORE)
	$(BIN)/codweb serve $(DATASTORE)

.PHONY: test
test: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python -m pytest -q -n 3 --dist loadfile -m "not network and not long"

.PHONY: test-long
test-long: $(VENV)/.test-ready
	$(BIN)/python -m pytest -q -n 3 -m "long and not network"

.PHONY: format
format: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins again what pyproject.toml asks for; needs uv. Read the difference before committing it.
.PHONY: lock
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv (pip install uv)" >&2; exit 1; }
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --output-file requirements.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

.PHONY: clean
clean:
	rm -rf $(VENV) demo-datastore dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find app storage tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for both: `make run` installs what the server needs, `make test` adds the tools.
$(VENV)/.run-ready: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what codweb needs into $(VENV) ..."
	$(PIP) install --no-compile -r requirements.lock
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.test-ready: requirements-dev.lock $(VENV)/.run-ready
	@echo "Installing the tools of the tests into $(VENV) ..."
	$(PIP) install --no-compile -r requirements-dev.lock
	@touch $@

$(BIN)/python:
	@python=""; \
	for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "codweb needs Python 3.11 or newer, and none was found." >&2; \
		echo "On Debian 12 or Ubuntu 24.04: sudo apt install python3 python3-venv" >&2; \
		echo "One that is elsewhere: make PYTHON=/path/to/python3.11 ..." >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$$python has no venv module. On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv $(VENV)
