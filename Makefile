# Two commands do everything: `make run` (install, rooms, the four notebooks) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help install run night lab test test-latest clean

help:
	@echo "make run          install, generate rooms, run the four notebooks, show the results"
	@echo "make night        train through all sizes overnight; again: goes on (options: make night NIGHT='--hours 4')"
	@echo "make lab          open JupyterLab on the notebooks"
	@echo "make test         install and run all tests"
	@echo "make test-latest  run the tests against the newest fastai"
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

test: install
	$(BIN)/python tests/in_step.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_test --n_workers 2 --do_print
	$(BIN)/python -m pytest

.venv-latest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python $(PIP) --upgrade --editable ".[train,rooms,assets,serve,cluster,test]"
	touch $@

test-latest: libx11 .venv-latest/installed
	.venv-latest/bin/python -m pytest

clean:
	rm -rf .venv .venv-latest .run
