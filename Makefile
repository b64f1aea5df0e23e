# Two commands for a newcomer, in a fresh clone on a fresh machine:
#   make demo   propagate a structure through a real volume and draw a picture of it
#   make test   every check of this repository
# Also: make lint, make bench, make clean.

VENV := .venv/bin
RUN := $(VENV)/python

unexport PYTHONPATH
unexport PYTHONHOME
export PYTHONUTF8 := 1
export PYTHONNOUSERSITE := 1
export OMP_NUM_THREADS ?= 2
export OPENBLAS_NUM_THREADS ?= 2
export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS ?= 2

.PHONY: help demo test lint bench clean environment-demo environment-test

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: environment-demo
	@$(RUN) Testing/demo.py

test: environment-test
	@$(RUN) Testing/suite.py

lint: environment-test
	@$(RUN) Testing/suite.py ruff format mypy imports

bench: environment-test
	@$(RUN) Testing/benchmarks/propagation.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that runs and can make environments; a name on the PATH may be a launcher of a
# version that is not installed.
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3 \
	/usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 \
	$(HOME)/.pyenv/versions/3.11.*/bin/python $(HOME)/.pyenv/versions/3.12.*/bin/python
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

environment-demo environment-test: environment-%:
	@for python in $(PYTHONS); do \
	  if "$$python" -c "$(SUITABLE)" >/dev/null 2>&1; then exec "$$python" Testing/environment.py $*; fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 that can make virtual environments was found."; \
	echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python"; \
	exit 1
