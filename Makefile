# A door to a few plain commands: each can be typed by hand after `source .venv/bin/activate`.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
INSTALLED := .venv/.installed
TESTED := .venv/.tested

.PHONY: repro check test lab data setup requirements
.DEFAULT_GOAL := repro

## everything: environment, data, the main chain and its table first, then the whole graph, the tables, the page
repro: data
	vans repro benchmarks
	vans repro $$(vans targets)
	@vans page
	@vans summary

## is everything there that a run needs? Ends with a smoke run of every stage, in under a minute
check: data
	@vans check

## linting, types, tests. No new worker for one that died: pytest-xdist 3.8 can then wait for ever with loadfile
test: setup $(TESTED)
	ruff check .
	mypy
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

## the notebooks in JupyterLab, with executed/ and results/ beside them; make lab LAB="--no-browser --allow-root" on a server
lab: setup
	@mkdir -p executed
	jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LAB)

## the toy world in data/, checked against data.dvc; a data/ of your own is left as it is
data: setup
	@vans world

## the environment in .venv, pinned
setup: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "vans needs Python 3.11 or later; this is `$(PYTHON) --version 2>&1`. Name another one: make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python has no venv module; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

$(TESTED): tests/requirements.txt $(INSTALLED)
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $(TESTED)

NOT_OURS = $(shell sed -n 's/^\([a-z]*\)==.*/--exclude \1/p' tests/requirements.txt)

## renew requirements.txt from what is installed (CUDA libraries only on Linux)
requirements:
	{ grep '^#' requirements.txt; .venv/bin/pip freeze --all --exclude vans --exclude pip $(NOT_OURS) | grep -v '^-e' | sort -f | \
	  sed -E '/^(nvidia-(cu|nc|nv[jst])[a-z0-9-]*|triton|cuda-[a-z]+)==/ s/$$/ ; sys_platform == "linux"/'; } > .requirements.new
	mv .requirements.new requirements.txt
