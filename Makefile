# Two commands from nothing: `make demo` runs the main job, `make test` passes the tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# real data, if they lie here: see docs/data.md
export PRISMTS_DATA ?= $(abspath $(firstword $(wildcard ../shared/data data)))

.PHONY: demo test lint types guide fast long whole slow gpu bench docs clean

demo: .venv/demo
	$(BIN)/prism demo --out demo

test: lint types guide whole

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/pyright

# a minute by itself, so not among the fast tests
guide: .venv/dev
	$(BIN)/python -m pytest -q -m slow tests/test_docs.py -k site_builds

# what plain pytest runs: under five minutes
fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

long: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "long and not slow and not gpu"

# both of them: twelve minutes on two cores
whole: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

slow: .venv/dev
	$(BIN)/python -m pytest -m slow

gpu: .venv/dev
	$(BIN)/python -m pytest -m gpu

# speed: ours beside sktime's network, the loop, many at once, growth with the size of the data, and fits beside
# neuralforecast and darts, which get an environment of their own; three quarters of an hour on a quiet machine
bench: .venv/dev .venv-peers/ready
	for setting in ETTh2 Weather Electricity Traffic AWR EP long; do $(BIN)/python benchmarks/step.py --setting $$setting || exit 1; done
	for setting in ETTh2 AWR EP; do $(BIN)/python benchmarks/step.py --setting $$setting --dtype bf16 || exit 1; done
	$(BIN)/python benchmarks/cross_step.py
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/scaling.py run && $(BIN)/python benchmarks/scaling.py table
	.venv-peers/bin/python benchmarks/peers.py --data ETTh2
	.venv-peers/bin/python benchmarks/peers.py --data Weather --rows 4000 --rounds 1

# the guide as a site, with the reference from the docstrings: open site/index.html
docs: .venv/dev
	$(BIN)/sphinx-build -W -q -b html docs site

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "PrismTS needs Python 3.11 or newer; set PYTHON=python3.11"'
	$(PYTHON) -m venv .venv

# torch comes first and from the pinned version, so that nothing else can pull another build in
.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/demo

.venv-peers/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -c constraints.txt torch
	.venv-peers/bin/python -m pip install -q -e . neuralforecast==3.3.0 darts==0.48.1
	touch $@

clean:
	rm -rf .venv .venv-peers demo dist site .pytest_cache .ruff_cache .hypothesis
