# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: help demo tutorials test slow aarch64 lint types coverage docs links wheel clean

help:  ## show the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(READY): pyproject.toml constraints.txt
	@command -v gcc >/dev/null || { echo "gcc is missing: apt-get install gcc"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV), once: PyTorch and TVM are large"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,report,dev]'
	@touch $@

demo: $(READY)  ## train, compile and check small networks; writes build/demo.html
	$(BIN)/python tutorials/demo.py

TUTORIALS := $(patsubst tutorials/%.py,tutorial-%,$(sort $(wildcard tutorials/[0-9]*.py)))

.PHONY: $(TUTORIALS)
# The longest one goes first: two cores are then busy to the end.
tutorials: tutorial-03_segmentation $(TUTORIALS)  ## run every tutorial, with -j2 two at a time; pictures appear in build/

$(TUTORIALS): tutorial-%: $(READY)
	@mkdir -p build; start=$$(date +%s); \
	$(BIN)/python tutorials/$*.py > build/$@.log 2>&1 || { cat build/$@.log; exit 1; }; \
	echo "tutorials/$*.py: done in $$(($$(date +%s) - start)) s"; rm build/$@.log

test: $(READY)  ## run the tests, without the long sweeps
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

slow: $(READY)  ## run the long sweeps
	$(BIN)/pytest -n auto --dist worksteal -m slow

aarch64: $(READY)  ## get an AArch64 Python with TVM, for the tests of RPC under QEMU
	$(BIN)/python tests/deploy/aarch64.py build/aarch64

lint: $(READY)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/mypy

coverage: $(READY)  ## run the tests and show which lines they don't reach
	$(BIN)/pytest -n auto -m "not slow" --cov --cov-report=term --cov-report=html

docs: $(READY)  ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

links: $(READY)  ## ask the network for every external link of the documentation
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

wheel: $(READY)  ## build wheel and source archive into dist/ and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --wheel --outdir dist packaging/runtime
	$(BIN)/twine check --strict dist/*

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist
