# make demo — the main job; make test — the whole test suite; each does its own set-up on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of their time is one core's: starting commands, browsers and services.
SIDE_BY_SIDE := --numprocesses 2 --dist worksteal
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-network check fast lint docs report container verify-container clean

demo: $(VENV)/ready
	$(BIN)/paretune study studies/demo.toml || test $$? -eq 3  # 3: done, and something stays undecided

# What installs other tools from the package index (over 1 GB) is left to test-network.
test: $(VENV)/ready
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not network"

test-network: $(VENV)/ready
	$(BIN)/python -m pytest -m network

# Lint, types, import rules, docs drift, fast tests; .ci/run does the same, with the whole suite in place of the fast half.
check: lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not assets"

lint: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror src/paretune/kernels/native/*.h src/paretune/kernels/native/*.cpp
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/ready
	$(BIN)/python docs/generate.py

# The research report over all published studies, in both languages; it fails where a claim no longer holds.
report: $(VENV)/ready
	for lang in ru en; do for form in html pdf; do \
	  $(BIN)/paretune report results/*/ --lang $$lang --format $$form --out docs/report/report.$$lang.$$form || exit; \
	done; done

# Builds the image and proves it: locked down, ready, healthy, stopped; says over which base image it stood.
container: $(VENV)/ready
	deploy/container.sh check

# Runs the demo study in a container without a network and compares its predictions with runs/demo.
verify-container: $(VENV)/ready
	deploy/container.sh verify

# torch first and by its exact version: any other spelling pulls gigabytes of CUDA.
$(VENV)/ready: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paretune needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,bot]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build
