PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint check docs bench bench-accuracy bench-camvid bench-densecrf bench-pipeline bench-scale lock clean

demo: $(INSTALLED)  ## label the photographs that scikit-image carries
	$(BIN)/densemask demo

test: lint check  ## everything that CI runs

$(INSTALLED): pyproject.toml requirements.lock CMakeLists.txt $(wildcard pipeline/backends/lattice/src/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[s3,cluster,demo,train,dev]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(INSTALLED)
	$(BIN)/python -m pytest

docs: $(INSTALLED)  ## write docs/job.md anew from the models
	$(BIN)/python -m tests.docs.reference

bench: bench-accuracy bench-densecrf bench-pipeline bench-scale  ## the tables of docs/results.md; needs ../shared

bench-accuracy bench-densecrf bench-pipeline: bench-%: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.$* ../shared

bench-camvid: $(INSTALLED)  ## trains the SegNet paper's networks on CamVid, small and for a short time; hours on a laptop
	$(BIN)/python -m tests.benchmarks.camvid ../shared

bench-scale: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.scale
	$(BIN)/python -m tests.benchmarks.scale --control-plane

lock:  ## renew requirements.lock from what a fresh environment resolves to
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet 'torch==2.13.*' '.[s3,cluster,demo,train,dev]'
	.venv-lock/bin/pip freeze --exclude densemask | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) dist build densemask-demo
