# make run · test · test-gpu · lint · bench · soak · mutations: each sets up all it needs, with nothing but python3 on the machine.
SHELL := /bin/bash
BIN := .venv/bin
PYTHON ?= python3
UV_VERSION := 0.13.9

.PHONY: run test test-slurm test-gpu lint format bench soak mutations lock clean

run: .venv/ready ## the default study, and its report
	$(BIN)/snakemake --cores all --logger vit-plasticity
	@[ results/demo/report.html -nt results/demo/figures/accuracy_by_lr.pdf ] || \
	    $(BIN)/snakemake --quiet all --report results/demo/report.html
	@echo "results/demo/report.html"

test: .venv/ready ## all tests but those that need SLURM or a GPU
	$(BIN)/pytest -m "not slurm and not gpu"

test-slurm: .venv/ready ## the workflow on a real SLURM, which the tests install and start on this machine
	$(BIN)/pytest tests/slurm

test-gpu: .venv/ready ## what only a GPU computes; skipped without one
	$(BIN)/pytest -m gpu

lint: .venv/ready ## style, the workflow's own checks, and whether the locked versions go together
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	VIRTUAL_ENV=.venv $(BIN)/uv pip check

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

bench: .venv/ready ## ratios against a plain baseline, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

soak: .venv/ready ## 200 kills, and the tables still equal
	$(BIN)/python -m tests.soak

mutations: .venv/ready ## each promise broken on purpose in a copy, and a test that sees it
	$(BIN)/python -m tests.mutations

lock: .venv/ready ## choose the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-annotate --no-header --quiet --output-file envs/requirements.lock

clean:
	rm -rf .venv results resources logs .snakemake

# uv installs the locked versions, checks their hashes, and compiles them: an uncompiled torch costs seconds at every start.
.venv/ready: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes envs/requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@
