# Every target sets up what it needs. GNU Make 3.81 and the old bash of macOS must be able to run it. Programs of the
# virtual environment are called through its Python: their first line breaks if the path has a space.

PYTHON ?= python3
ARGS ?=
ENGINES ?=
WORKERS ?= 4

BIN := .venv/bin/python
DONE := .venv/.installed
CLIENTS := .venv/.clients
IMAGES = $(BIN) -m tests.images.make
# Most tests wait for the engine, so more workers than cores pay off. Workers need the interpreter's options, too.
STRICT := $(BIN) -X dev -W error
# The debug hooks of memory allocators find errors of C code only, and cost a seventh of the time.
export PYTHONMALLOC := default
# Some containers set it. The tests start thousands of processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
PARALLEL = $(if $(filter-out 0,$(WORKERS)),--dist worksteal --tx '$(WORKERS)*popen//python=$(STRICT)')

.PHONY: help venv engine images engines engines-stop demo test test-engines bench check soak docs wheel test-wheel \
	test-pythons clean

help: ## list the targets (default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

venv: $(CLIENTS) ## create .venv with the package and its tools

# Debian's python3 lacks ensurepip, which every new environment needs.
$(DONE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' is not Python 3.11 or newer; choose one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(PYTHON) tests/engines/debian.py "$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" || { \
	  echo "$(PYTHON) has no venv module; install it (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN) -m pip --version >/dev/null 2>&1 || { \
	  echo "creating a virtual environment in .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing the package and its tools into .venv"
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(DONE)

# Client libraries of the examples, which the demo does not need.
$(CLIENTS): $(DONE)
	@echo "installing the client libraries of the examples into .venv"
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[dev,examples]'
	@touch $(CLIENTS)

engine: $(DONE) ## find a container engine, or install Docker with buildx and compose (root on Debian)
	@$(BIN) tests/engines/ensure.py

images: engine ## pull the images, or build stand-ins from Debian packages; print their prefix
	@$(IMAGES)

engines: images ## start more engines for the tests: other versions, Podman (root on Debian)
	@$(BIN) -m tests.engines.start start $(ENGINES)

engines-stop: $(DONE) ## stop these engines and keep their storage
	@$(BIN) -m tests.engines.start stop $(ENGINES)

demo: engine ## start, use and remove a real PostgreSQL server
	@prefix="$$($(IMAGES) postgres:15)" && DOCKERTEST_IMAGE_PREFIX="$$prefix" $(BIN) examples/exposure_notifications.py

test: $(CLIENTS) engine ## run all tests except the long ones, with warnings as errors (ARGS="-k retry", WORKERS=0)
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(STRICT) -m pytest $(PARALLEL) $(ARGS)

test-engines: $(CLIENTS) engines ## run the integration tests on all engines (ENGINES="podman-4" selects)
	@PARALLEL="$(PARALLEL)" $(BIN) -m tests.engines.matrix $(ENGINES) -- $(ARGS)

soak: $(CLIENTS) engine ## run the long tests
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) -m pytest -m soak $(ARGS)

bench: engine ## compare with the docker SDK and testcontainers-python (ARGS="reuse --rounds 5")
	@$(BIN) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" $(BIN) -m tests.benchmarks $(ARGS)

check: $(CLIENTS) ## run ruff, mypy, pyright, import-linter, vulture and the architecture tests
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy
	$(BIN) -m pyright
	$(BIN) .venv/bin/lint-imports --no-logo
	$(BIN) -m vulture
	$(BIN) -m pytest -q tests/test_architecture.py
	$(BIN) -m tests.prose --fail

docs: $(DONE) ## build the documentation in build/docs
	@$(BIN) -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo "open build/docs/index.html"

wheel: $(DONE) ## build the wheel in dist
	@rm -rf dist
	@$(BIN) -m build --wheel

test-wheel: wheel engine ## test the installed wheel with the oldest and the newest Python of this machine from 3.11 on
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) -m tests.wheel dist/*.whl

test-pythons: wheel engine ## test the wheel with all supported Pythons, missing ones from Debian unstable (root on Debian)
	@prefix="$$($(IMAGES))" && DOCKERTEST_IMAGE_PREFIX="$$prefix" DOCKERTEST_REQUIRED=1 $(BIN) -m tests.wheel --all dist/*.whl

clean: ## remove all generated files in this folder; engine and images remain
	rm -rf .venv build dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
