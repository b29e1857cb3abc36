# Everything runs in its own .venv; each target does all the set-up it needs and is quick the second time.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test test-gui lint format clean

demo: $(VENV)/.core
	$(PY) run_pipeline.py --dataset sample://phantom --outdir outputs/demo
	@echo "open outputs/demo/report.html"

test: $(VENV)/.dev
	$(PY) -m pytest -m "not gui"

test-gui: $(VENV)/.dev
	$(PY) -m pytest -m gui -rs

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache

$(PY):
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'emlib needs Python 3.11 or newer; name one with make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: requirements-core.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-core.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt pyproject.toml $(VENV)/.core | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@
