# The two commands of the README: `make run` and `make test`. Everything else is for developers.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DATA ?= data
HTTP ?= 127.0.0.1:8080
DIMSE ?= 11112
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 3600

.PHONY: run install install-dev test lint types bench interop fuzz clean

run: install
	@$(BIN)/coverslip serve --data $(DATA) --http $(HTTP) --dimse $(DIMSE) --demo

install: .venv/.installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Coverslip needs Python 3.11 or newer; found $$($(PYTHON) --version)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; sh .ci/make-venv $(PYTHON); }

.venv/.installed: .venv/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

install-dev: .venv/.installed-dev

.venv/.installed-dev: .venv/.installed pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint,postgresql]'
	@touch $@

test: install-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

interop: install-dev
	@$(BIN)/python -m pytest tests/interop $(PYTEST_ARGS)

lint: install-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/python tests/support/licences.py

types: install-dev
	@$(BIN)/mypy

# Random conversations with the DICOM listener; what it finds is kept under tests/corpus/dimse.
fuzz: install-dev
	@$(BIN)/python -m tests.fuzz.listener --seconds $(FUZZ_SECONDS)

bench: install-dev
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache
