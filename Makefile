# Each target does the set-up it needs; `make help` lists them all.
SHELL := /bin/sh
PYTHON := .venv/bin/python
GOLDSMITH := .venv/bin/goldsmith
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full unit sizes lint format bench up down doctor lock docs requirements clean distclean

help: ## list every target
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what is missing: system packages, virtual environment, command
	@.ci/bootstrap

demo: setup ## build, check, scan, sign, publish, promote and pull the two images
	@$(PYTHON) -m tests.demo

test: setup ## run all tests; fails when the fast ones cover too little of the code
	@.ci/test

test-full: setup ## build all images, variants and platforms on all three engines, compare; build and run programs
	@$(PYTHON) -m pytest -m full tests/integration tests/full

unit: setup ## run the tests that need no engine, registry or network
	@$(PYTHON) -m pytest tests/unit tests/contract tests/golden tests/architecture

lint: setup ## check format, style and types
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy

format: setup ## format the code
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

bench: setup ## measure against the usual tools; writes .goldsmith/bench.json
	@$(PYTHON) -m tests.bench

up: setup ## start a container engine and the registry, where none answers
	@$(GOLDSMITH) up

down: setup ## stop what we started
	@$(GOLDSMITH) down

doctor: setup ## say what is installed and what is missing
	@$(GOLDSMITH) doctor

lock: setup ## bring the images' package locks up to date
	@$(GOLDSMITH) lock

docs: setup ## write the reference pages anew from the code
	@$(PYTHON) docs/generate.py

sizes: setup ## build the catalogue, record digests and sizes, write the tables of docs/catalogue.md
	@$(GOLDSMITH) facts
	@$(PYTHON) docs/sizes.py

# No index address gets into the file: it is asked for by name, wherever it is installed.
requirements: setup ## write requirements.lock anew from pyproject.toml
	@$(PYTHON) -m pip install -q --no-deps uv
	@$(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  pyproject.toml --output-file requirements.lock

clean: ## stop what we started; remove unfinished work, caches and tool output
	@if [ -x $(GOLDSMITH) ]; then $(GOLDSMITH) down; fi
	@rm -rf .goldsmith/tmp .mypy_cache .ruff_cache .hypothesis .coverage dist
	@find builder registry tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the state directory (keys too) and the virtual environment as well
	@rm -rf .goldsmith .venv
