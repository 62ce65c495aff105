# make demo    train four schedules on CMUdict and compare them (at most 10 minutes on 2 cores)
# make test    run the tests, all but the slow ones (at most 10 minutes on 2 cores)
# make test-slow   run the slow ones
# make check   lint and types
# make bench   what is timed, as a table and in runs/bench/results.json
# make bench-peers   installs what it is held against (3 GB); bench skips what is not there
PYTHON ?= python3
PEERS_PYTHON ?= python3.11
BIN := .venv/bin
DEMO := runs/demo
SHELL := /bin/bash

.PHONY: install demo test test-slow check format bench bench-peers constraints clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s2s_jax needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: install
	$(BIN)/s2s sweep --config=experiments/demo.py --workdir=$(DEMO) --jobs=2
	$(BIN)/s2s compare $(DEMO)

test: install
	$(BIN)/python -m pytest -q -n auto --dist loadgroup -m 'not slow'

test-slow: install
	$(BIN)/python -m pytest -q -n auto --dist loadgroup -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	@mkdir -p runs/bench
	$(BIN)/python -m benchmarks --json runs/bench/results.json

# Two environments: what TensorFlow and PyTorch need does not go together. Python 3.11 is the last
# for OpenNMT-tf's TensorFlow.
bench-peers: .venv-peers/opennmt/installed .venv-peers/torch/installed

.venv-peers/%/installed: benchmarks/requirements-%.txt
	$(PEERS_PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# The pinned set, for every Python that is supported, without addresses.
constraints:
	uv pip compile --universal --no-header --no-annotate --extra dev --upgrade -p 3.11 pyproject.toml -o constraints.txt

clean:
	rm -rf .venv .venv-peers
