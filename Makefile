# autoinst: `make demo` and `make test` set up everything they need in .venv/ by themselves.
# Another interpreter for .venv: make demo PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format check-once lock bench bench-peers soak kill transparency docs dist single-file clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

$(READY): requirements/dev.txt pyproject.toml scripts/venv.sh
	@PYTHON='$(PYTHON)' sh scripts/venv.sh $(VENV) requirements/dev.txt --editable
	@touch $@

demo: $(READY) ## Run a small real worker under autoinst and show the jobs it recorded
	@$(BIN)/autoinst demo

test: lint check-once ## Lint, types, layers, all tests; then the core tests on every Python 3.10-3.13 found
	$(BIN)/python scripts/matrix.py 3.10 3.11 3.12 3.13

test-all: lint check-once ## The same, and on 3.14 and 3.15, fetched from Debian's packages
	$(BIN)/python scripts/pythons.py fetch 3.14 3.15
	$(BIN)/python scripts/matrix.py 3.10 3.11 3.12 3.13 3.14 3.15

lint: $(READY) ## Run ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Let ruff format the code and sort its imports
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

check-once: $(READY)
	$(BIN)/python scripts/services.py
	$(BIN)/python scripts/environments.py
	-$(BIN)/python scripts/pythons.py fetch 3.14t
	$(BIN)/python scripts/unsteady.py

lock: $(READY) ## Renew requirements/ from pyproject.toml
	$(BIN)/python scripts/lock.py

bench: $(READY) ## Measure recorder, agent and store beside plain Python, as one table (never part of the tests)
	$(BIN)/python -m benchmarks.table

bench-peers: $(READY) ## Compare with ddtrace, New Relic, OpenTelemetry, Sentry and others, each in its environment (hours; make docs/benchmarks.md of it)
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers.page

soak: $(READY) ## Run mixed real workers with kills, edits of rules and restarts of the agent, and account for every job (SECONDS=3600)
	$(BIN)/python -m benchmarks.soak --seconds $(or $(SECONDS),3600)

kill: $(READY) ## Kill processes, damage files and flood the spool on every Python found, and count what survived (an hour)
	$(BIN)/python -m pytest -m kill
	$(BIN)/python scripts/pythons.py fetch 3.14 3.15
	$(BIN)/python scripts/kill.py

transparency: $(READY) ## Compare programs with and without autoinst: our battery, libraries' own tests, CPython's own on every Python found (hours)
	$(BIN)/python -m pytest tests/test_sitecustomize.py tests/test_run.py tests/test_transparency.py
	$(BIN)/python benchmarks/library_tests.py
	$(BIN)/python benchmarks/cpython_tests.py --fetch

single-file: $(READY) ## Make dist/autoinst.pyz, which runs where nothing can be installed
	$(BIN)/python scripts/single_file.py

dist: $(READY) ## Make all of a release in dist/: wheel, sdist, single file, bill of materials
	rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -t wheel -d dist
	$(BIN)/python scripts/single_file.py
	$(BIN)/python scripts/environments.py release
	$(BIN)/python scripts/bill_of_materials.py dist

docs: $(READY) ## Make a web site of docs/ in build/docs
	$(BIN)/python scripts/environments.py docs
	.venvs/docs/bin/sphinx-build -W --keep-going -q -b html docs build/docs

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venvs .pythons .pythons.built build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
