# The same commands for a newcomer, a developer and CI. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
# Without an NVIDIA GPU, ask for a torch release that has a CPU build; with one, leave the choice to pip.
CONSTRAINTS := $(shell nvidia-smi -L >/dev/null 2>&1 || echo "-c constraints-cpu.txt")
PIP := $(RUN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS)

.PHONY: help demo test lint types docs wheel openclip emoji clean

help:           ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-12s%s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed        ## find the heads that make the pictures more colourful, and draw them (runs/demo)
	$(RUN)/pagopt search vivid --out runs/demo --batch_size 32

test: $(VENV)/.developer        ## all tests that need neither a GPU nor downloaded weights
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: $(VENV)/.developer        ## ruff: rules and format
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(VENV)/.developer       ## mypy, strict
	$(RUN)/mypy

docs: $(VENV)/.developer        ## build the documentation into site/
	$(RUN)/mkdocs build --strict

wheel: $(VENV)/.developer       ## build the wheel into dist/
	rm -rf dist
	$(RUN)/python -m build --wheel --outdir dist . >/dev/null
	@ls -l dist

openclip: $(VENV)/.developer    ## load the embedded scorer with open_clip, in a folder of its own, and compare
	$(PIP) --upgrade --target build/openclip --no-deps -r tests/openclip/requirements.txt
	PYTHONPATH=build/openclip:tests/openclip $(RUN)/python -m pytest -p torchvision_guard -m openclip tests/openclip

emoji: $(VENV)/.developer       ## train the embedded model again (needs npm; resumable; hours on a CPU)
	$(RUN)/python -m tools.emoji

clean:          ## remove what the other targets built, except the environment and runs/
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@echo "Installing pagopt into $(VENV) (a minute or two) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.developer: pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@echo "Installing pagopt and what developers need into $(VENV) (a minute or two) ..."
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.installed $@
