# Every target sets up what it needs. Written for GNU Make 3.81 and the old bash of macOS, too. Programs of the virtual
# environment are called as modules: their own first lines do not survive a folder with a space in its name.

PYTHON ?= python3
ARGS ?=
ENGINES ?=

BIN := .venv/bin/python
DONE := .venv/.installed
CLIENTS := .venv/.clients
IMAGES = $(BIN) -m tests.images.make

.PHONY: help venv engine images engines engines-stop demo test test-engines bench check soak docs wheel test-wheel clean

help: ## say what can be made here (this)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

venv: $(CLIENTS) ## a virtual environment in .venv with the package and its tools

# Debian's python3 comes without ensurepip, which every new environment needs.
$(DONE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, and '$(PYTHON)' is not; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(PYTHON) tests/engines/debian.py "$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || { \
	  echo "$(PYTHON) has no venv module; install it (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN) -m pip --version >/dev/null 2>&1 || { \
	  echo "making a virtual environment in .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing the package and its tools into .venv"
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(DONE)

# What the examples talk to their services with; the demo does without.
$(CLIENTS): $(DONE)
	@echo "installing the examples' clients into .venv"
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[dev,examples]'
	@touch $(CLIENTS)

engine: $(DONE) ## a container engine: the one that answers, else Docker and buildx are installed (root on Debian)
	@$(BIN) tests/engines/ensure.py

images: engine ## the images: official ones, or stand-ins from Debian's packages; prints their prefix
	@$(IMAGES)

engines: images ## more engines for the tests, other versions and kinds, beside the first (root on Debian)
	@$(BIN) -m tests.engines.start start $(ENGINES)

engines-stop: $(DONE) ## end those; what they stored stays for the next time
	@$(BIN) -m tests.engines.start stop $(ENGINES)

demo: engine ## a real PostgreSQL server, started, used and removed
	@prefix="$$($(IMAGES) postgres:15)" && DOCKERTEST_IMAGE_PREFIX="$$prefix" $(BIN) examples/exposure_notifications.py

test: $(CLIENTS) engine ## all tests but the long ones, every warning an error (more arguments for pytest: ARGS="-k retry")
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) -X dev -W error -m pytest $(ARGS)

test-engines: $(CLIENTS) engines ## the tests with a real engine, on all of them, and a table (some of them: ENGINES="podman-4")
	@$(BIN) -m tests.engines.matrix $(ENGINES) -- $(ARGS)

soak: $(CLIENTS) engine ## the long tests
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) -m pytest -m soak $(ARGS)

bench: engine ## this library beside the docker SDK and testcontainers-python, on a quiet machine (ARGS="reuse --rounds 5")
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" $(BIN) -m tests.benchmarks $(ARGS)

check: $(CLIENTS) ## ruff, mypy --strict, pyright and the tests of the house
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy
	$(BIN) -m pyright
	$(BIN) -m pytest -q tests/test_house.py

docs: $(DONE) ## the reference, from the docstrings, in build/docs
	@$(BIN) -W ignore -m pdoc --no-show-source --docformat google -t docs -o build/docs dockertest dockertest.postgres dockertest.testcase dockertest.errors
	@echo "open build/docs/index.html"

wheel: $(DONE) ## the wheel, in dist
	@rm -rf dist
	@$(BIN) -m build --wheel

test-wheel: wheel engine ## the installed wheel, with every Python from 3.10 on that this machine has
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) tests/wheel.py dist/*.whl

clean: ## remove what was made in this folder; engine and images stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
