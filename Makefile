# `make` alone lists what there is. Variables, with what they do:
#   PYTHON=python3.12    the Python that .venv is built with (default: python3 if it fits, else the newest that fits)
#   EXTRA=cpu|gpu        what is installed (default: gpu where an NVIDIA driver answers, else cpu; EXTRA=cpu,torch adds PyTorch)
#   LAB_ARGS="…"         more arguments for JupyterLab, such as --no-browser --port 9000
#   STAGES="…"           which stages `make test` runs: style tensorflow jax torch browser notebooks
#   PYTEST_ARGS="…"      more arguments for pytest in the unit and parity tests, such as -k unet
#   WORKERS=2            how many processes run the tests and the notebooks
#   BENCH="…"            which timings `make bench` runs, such as unet_step (default: all); BENCH_ARGS="…": arguments for them
#   OUT=../students      the folder that `make release` writes; it must be new, and not within this one
#   NB="…"               which notebooks `make notebooks` runs and `make slides` shows (default: all)

.DEFAULT_GOAL := help
GOAL := $(firstword $(MAKECMDGOALS) setup)
PY := .venv/bin/python
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
export STAGES PYTEST_ARGS WORKERS BENCH BENCH_ARGS
# TensorFlow's start-up notes would stand in the notebooks.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help lab test check notebooks exercises release slides site bench constraints setup clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

lab: setup  ## set up, then open JupyterLab on notebooks/00_start_here.ipynb
	@echo "Opening JupyterLab on notebooks/00_start_here.ipynb; Ctrl-C stops it."
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m jupyterlab $(AS_ROOT) $(LAB_ARGS) notebooks/00_start_here.ipynb

test: setup  ## set up, then run everything that CI runs: unit and parity tests on each backend, pages in Chromium, the notebooks
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) tools/check.py

check: setup  ## before a commit: style, and the tests that take no more than seconds each
	@PATH="$(CURDIR)/.venv/bin:$$PATH" STAGES="style quick" $(PY) tools/check.py

notebooks: setup  ## run the notebooks top to bottom and write their outputs in place
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) tools/notebooks.py run $(NB)

exercises: setup  ## run the solutions, make the exercises from them and run those
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) tools/exercises.py make $(NB)

release: setup  ## write the course's folder as students get it, without solutions, tests and grader
	@$(PY) -m course_lib release $(or $(OUT),../students)

slides: setup  ## write each chapter's slides to slides/, a file each that needs no network
	@$(PY) -m course_lib slides --out slides $(NB)

site: setup  ## build the static site of the course into site/, without running a cell
	@KERAS_BACKEND=$${KERAS_BACKEND:-jax} $(PY) docs/build.py

bench: setup  ## run the side-by-side timings of benchmarks/ and print their table
	@$(PY) tools/bench.py

# Newer releases: .venv/bin/python -m pip install --upgrade NAME, make test, then this.
constraints: EXTRA = cpu,dev
constraints: setup  ## write the versions installed in .venv to constraints.txt
	@echo "Writing the versions installed in .venv to constraints.txt."
	@$(PY) tools/constraints.py > constraints.txt.new && mv constraints.txt.new constraints.txt

setup:  ## set up .venv (the other targets do it when it is needed)
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then \
	        exec "$$python" tools/setup.py --python "$(PYTHON)" --extra "$(EXTRA)" --goal $(GOAL); \
	    fi; \
	done; \
	echo "No Python 3 on the PATH: install Python 3.11, 3.12 or 3.13, then run \`make $(GOAL)\` again." >&2; exit 1

clean:  ## remove .venv and every cache; what you wrote stays
	@echo "Removing .venv and the caches."
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} + ; find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
