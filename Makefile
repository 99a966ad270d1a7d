# make demo   set up if needed, then the built-in demo, end to end: runs/mlflow.db, report/index.html
# make test   set up if needed, then every check, and the tests but for the long ones
# make test-all   the same with those: `ray up` on hosts of a test's own, the demo's values, benchmarks, faults
# make docs   set up if needed, then the documentation as a site: site/index.html; a warning is an error
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The files over three processes, in the order of tests/conftest.py: more than two cores, since many tests wait for Ray.
SHARED_OUT := -n 3 --dist loadfile --no-loadscope-reorder

# A person at a terminal sees packages arrive; a log gets none of it.
QUIET := $(shell test -t 2 || echo --quiet)

.PHONY: demo test test-all check docs setup lock clean

demo: setup
	$(BIN)/python launch.py
	$(BIN)/python -m analysis

test: check
	$(BIN)/python -m pytest $(SHARED_OUT) -m "not long"

test-all: check
	$(BIN)/python -m pytest $(SHARED_OUT)

# Without ruff's cache, which does not see that a module has moved.
check: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict

setup: $(VENV)/.installed

# The environment, exactly as locked; every package is checked against its hash.
$(VENV)/.installed: requirements.lock bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; make PYTHON=python3.12, say" >&2; exit 1; }
	@echo "setting up $(VENV): 7.5 GB, some minutes; every package is checked against its hash"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	$(BIN)/uv pip install $(QUIET) --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@touch $@

# Newest versions within the ranges of pyproject.toml.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra cluster --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --quiet -o requirements.lock
	$(BIN)/uv pip compile bootstrap.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --quiet -o bootstrap.lock

clean:
	rm -rf $(VENV) runs report site
