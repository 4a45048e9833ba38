# `make demo` and `make test` need Python >= 3.11 and make, nothing else. They share one .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch is named exactly: a range may pull gigabytes of CUDA packages.
TORCH := torch==2.13.0
GENERATED := protos/alliance/v1/exchange_pb2.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test format protos benchmarks clean help

help:
	@echo "make demo     five retailers and a coordinator learn together (about two minutes after installing)"
	@echo "make test     every check of the project"
	@echo "make format   format and lint in place"
	@echo "make protos   regenerate the protocol code"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev,simulation]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # a worker a core

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/alliance/v1/*.proto

clean:
	rm -rf $(VENV) .peers demo-run build dist
