# Two commands do everything: `make run` (install, rooms, the four notebooks) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
# Two workers share the tests, file by file; what minds the clock runs afterwards, alone.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install run night lab lint fix quick notebooks docs test test-latest test-unity clean

help:
	@echo "make run          install, generate rooms, run the four notebooks, show the results"
	@echo "make night        train through all sizes overnight; again: goes on (options: make night NIGHT='--hours 4')"
	@echo "make lab          open JupyterLab on the notebooks"
	@echo "make quick        lint, export in step, the fast tests: under 90 seconds once installed"
	@echo "make fix          let ruff mend what it can"
	@echo "make notebooks    run the library notebooks whose code has changed, for their outputs"
	@echo "make docs         build the documentation site into site/, with a demo that runs in the browser (needs npm)"
	@echo "make test         install and run all tests, and say which took longest"
	@echo "make test-latest  run the tests against the newest fastai"
	@echo "make test-unity   let Unity's own reader read what seg_convert writes"
	@echo "make clean        remove the environments and the stamps of finished runs (data and models stay)"

# What is installed is as new as what asks for it; an interrupted installation leaves no stamp.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with make PYTHON=python3.12 ...")'
	@echo "installing into .venv (PyTorch and its CUDA libraries are about 3 GB to fetch, 7 GB on disk)"
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

# Panda3D's software renderer links to one X library; it needs no X server.
libx11:
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libX11.so.6")' 2>/dev/null \
	|| (echo "installing libx11-6" && apt-get update -qq && apt-get install -y -qq libx11-6) \
	|| (echo "libX11.so.6 is missing; install it once (Debian, Ubuntu: sudo apt install libx11-6)" && exit 1)
.PHONY: libx11

install: libx11 .venv/installed

run: install
	$(BIN)/seg_series

# The table of results grows in Assets/Data~/night; Ctrl-C at any time, the same command goes on.
night: install
	$(BIN)/seg_night $(NIGHT)

lab: install
	$(BIN)/jupyter lab

lint: install
	$(BIN)/ruff check .

fix: install
	$(BIN)/ruff check --fix .

quick: lint
	$(BIN)/python tests/in_step.py
	$(BIN)/python -m pytest -q $(IN_PARALLEL) -m "not slow and not clock"

notebooks: install
	$(BIN)/python tests/outputs.py

# The pages come from the text of the code: no torch is needed, and none is installed for them.
.venv/docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --constraint constraints.txt --editable ".[cpu,docs]"
	touch $@

docs: .venv/docs
	$(BIN)/python docs/build_site.py

test: lint
	$(BIN)/python tests/in_step.py
	$(BIN)/python tests/outputs.py --check
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --do_print --timing
	$(BIN)/python -m pytest --durations 10 $(IN_PARALLEL) -m "not clock"
	$(BIN)/python -m pytest --durations 10 -m clock

.venv-latest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python $(PIP) --upgrade --editable ".[cpu,train,segformer,rooms,assets,serve,cluster,shards,test]"
	touch $@

test-latest: libx11 .venv-latest/installed
	.venv-latest/bin/python -m pytest $(IN_PARALLEL) -m "not clock"
	.venv-latest/bin/python -m pytest -m clock

# Unity's reader pins numpy 1.23: it is put aside, without what it pins, and only this test sees it.
UNITY := pysolotools "dataclasses-json~=0.5.7" "marshmallow<5" marshmallow-enum typing-inspect mypy-extensions
.venv-unity/installed: Makefile
	$(BIN)/python $(PIP) --no-deps --target .venv-unity --upgrade $(UNITY)
	touch $@

test-unity: install .venv-unity/installed
	PYTHONPATH="$(CURDIR)/.venv-unity" $(BIN)/python -m pytest tests/test_unity.py

clean:
	rm -rf .venv .venv-latest .venv-unity .run site
