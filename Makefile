# Each target sets up what it needs in .venv; Python 3.11 or newer and a C compiler are all that must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= auto
IN = $(VENV)/bin/python
PIP = $(IN) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check lint clean

demo: $(VENV)/.demo
	$(IN) -m jaccomp demo -o demo-output

test: $(VENV)/.test
	$(IN) -W error -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

check: lint
	$(IN) -m jaccomp check --all

lint: $(VENV)/.test
	$(IN) -m ruff check
	$(IN) -m ruff format --check
	$(IN) -m mypy

clean:
	rm -rf $(VENV) demo-output

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.demo
