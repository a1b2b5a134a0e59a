# `make` lists the targets. With PYTHON=/path/to/python no environment is built: that interpreter is
# checked and used.

ifdef PYTHON
PY := $(PYTHON)
else
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
endif

NEED_PY := command -v $(PY) >/dev/null || { echo "there is no $(PY) yet; run: make env"; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help env check demo test test-slow gpu-check docs lint clean

help:  ## list the targets
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@echo '  PYTHON=/path/to/python uses an existing environment instead of building .venv'

env:  ## build .venv with everything that is needed; nothing to do when it is ready
ifdef PYTHON
	@$(PY) tools/environment.py check
else
	@python3 tools/environment.py build
endif

check:  ## print the versions in the environment and what is wrong with them
	@$(NEED_PY)
	@$(PY) tools/environment.py check

demo: env  ## pre-train on videos, fine-tune a segmenter and a detector, show the result
	@$(PY) tools/demo.py

test: env  ## run the tests, without the slow ones
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --durations=15 tests

test-slow: env  ## run the slow tests
	@$(PY) -m pytest -m slow tests

gpu-check:  ## measure on a GPU, 12 minutes; no network: PYTHON=python3 WHEELS=FOLDER, see its --help
	@$(NEED_PY)
	@$(PY) benchmarks/gpu_check.py $(if $(WHEELS),--wheels $(WHEELS))

docs: env  ## build the documentation in docs/_build/html
	@OMP_NUM_THREADS=1 $(PY) -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo documentation: docs/_build/html/index.html

lint: env  ## check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

clean:  ## remove what builds and tests leave behind; keeps .venv, data and work_dirs
	rm -rf build dist docs/_build docs/api/rooms *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
