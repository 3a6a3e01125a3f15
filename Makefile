# Each target sets up what it needs in .venv; Python 3.11 or newer and a C compiler are all that must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= auto
IN = $(VENV)/bin/python
PIP = $(IN) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check lint clean browser-tools gallery-shots

demo: $(VENV)/.demo
	$(IN) -m jaccomp demo -o demo-output

test: $(VENV)/.test browser-tools
	$(IN) -W error -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

check: lint
	$(IN) -m jaccomp check --all

lint: $(VENV)/.test
	$(IN) -m ruff check
	$(IN) -m ruff format --check
	$(IN) -m mypy

gallery-shots: $(VENV)/.test
	$(IN) tests/gallery_shots.py -o gallery-shots

clean:
	rm -rf $(VENV) demo-output gallery-shots

# What the browser tests judge pages with. Without npm, or without a network, those tests are skipped, and say so.
browser-tools: | $(VENV)/bin/python
	@cmp -s tests/browser/package-lock.json $(VENV)/browser/installed || { mkdir -p $(VENV)/browser && \
	cp tests/browser/package.json tests/browser/package-lock.json $(VENV)/browser/ && \
	npm ci --prefix $(VENV)/browser --ignore-scripts --no-audit --no-fund --silent && \
	cp tests/browser/package-lock.json $(VENV)/browser/installed; } || echo 'npm did not install axe-core and vnu-jar'

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.demo
