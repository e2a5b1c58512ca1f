# Two commands for newcomers: `make demo` and `make test`. The rest is for those who change the code.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# more for pip, for example an index with CPU builds of PyTorch (saves gigabytes where the default build is for CUDA)
PIP_FLAGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CONSTRAINTS := constraints/cpu.txt
# tests in parallel: most wait for jobs or processes, so more than there are cores
WORKERS ?= 4
VERL_PYTHON := $(abspath $(VENV)-verl/bin/python)
# the tests of `make check`
FAST := not slow and not training and not browser and not slurm
# which of its tests `make test` runs; none is all
TESTS ?=
# which of the tests that need VeRL or vLLM
VERL_TESTS ?= verl or vllm

.PHONY: help demo test check verl bench format docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.local  ## Install, then run a whole search: real GRPO on this machine's CPU
	$(BIN)/llmzero-hpc demo

test: $(VENV)/.test  ## Install what the tests need, and run them all
	@sh tests/install_packages.sh
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m '$(TESTS)'

# what only a real Slurm, VeRL or vLLM reaches is covered by `make test`, and not counted here
check: $(VENV)/.test  ## Lint, types, and the fast tests with their coverage floor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m '$(FAST)' --cov --cov-report=term:skip-covered --cov-fail-under=80

# one after the other: a phase on two machines takes ten gigabytes
verl: $(VENV)-verl/.made $(VENV)/.test  ## Install VeRL and vLLM for CPUs apart, and run the tests that need them
	@sh tests/install_packages.sh
	LLMZERO_VERL_PYTHON=$(VERL_PYTHON) LLMZERO_VLLM_PYTHON=$(VERL_PYTHON) \
	  $(BIN)/python -m pytest -m '$(VERL_TESTS)'

bench: $(VENV)/.test  ## Measure, and write docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

format: $(VENV)/.test  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test  ## Write the generated pages and schemas anew
	$(BIN)/python docs/generate.py
	$(BIN)/python -m llmzero_hpc.store.schemas

clean:  ## Remove the virtual environment and caches; searches under state/ stay
	rm -rf $(VENV) $(VENV)-verl .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

# where pip does not find the CPU build of torch, PIP_FLAGS says where PyTorch keeps it (README, "Two commands")
$(VENV)-verl/.made: tests/install_verl.sh constraints/verl-cpu.txt pyproject.toml
	@echo "Installing VeRL and vLLM into $(VENV)-verl (about 4.2 GB, some minutes)"
	@sh tests/install_verl.sh $(VENV)-verl $(PYTHON) $(PIP_FLAGS)
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which one: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.local: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	@echo "Installing into $(VENV) (about 1.7 GB, a minute or two)"
	$(PIP) install $(PIP_FLAGS) --constraint $(CONSTRAINTS) torch
	$(PIP) install $(PIP_FLAGS) --constraint $(CONSTRAINTS) --editable '.[local]'
	@touch $@

$(VENV)/.test: $(VENV)/.local
	@echo "Installing what the tests need"
	$(PIP) install $(PIP_FLAGS) --constraint $(CONSTRAINTS) --editable '.[local,agents,baselines,deepspeed,ray,test]'
	@touch $@
