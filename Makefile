# One command for each everyday act; `make help` lists them. Set-up happens by itself.
PYTHON ?=
PY := .venv/bin/python
SEQSTRESS := .venv/bin/seqstress
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run ui l0 test lint format bench lock clean

help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/.ready: requirements.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(PYTHON)

setup: .venv/.ready ## make .venv from the lock and bring what the embedded server needs (every target does it by itself)

run: .venv/.ready ## the stress test of scenarios/l0.yaml against a real embedded Triton, with a verdict
	@$(SEQSTRESS) run scenarios/l0.yaml $(ARGS)

ui: .venv/.ready ## the Locust web UI on 127.0.0.1:8089 with the embedded server
	@$(SEQSTRESS) run scenarios/l0.yaml --ui $(ARGS)

l0: .venv/.ready ## the whole matrix of Triton's own L0_sequence_stress
	@$(SEQSTRESS) l0 $(ARGS)

test: .venv/.ready ## all tests: unit, wire, locust processes, end to end on the real server
	@$(PY) -m pytest $(ARGS)

lint: .venv/.ready ## ruff, mypy, and whether generated files are current
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: .venv/.ready ## let ruff rewrite the sources
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

bench: .venv/.ready ## client CPU per request, measured side by side on the embedded server
	@$(PY) -m bench $(ARGS)

lock: ## resolve the dependencies anew into requirements.lock (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate \
		--generate-hashes --no-header --extra server --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove .venv, caches and build results (runs/ stays)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
