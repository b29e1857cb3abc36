# Everything runs in its own .venv; each target does all the set-up it needs and is quick the second time.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Up to four processes; a file's tests stay in one, since they share what is costly to make.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo train-quick test test-slow test-gui lint format clean

demo: $(VENV)/.core
	$(PY) run_pipeline.py --dataset sample://phantom --outdir outputs/demo
	@echo "open outputs/demo/report.html"

# Seven minutes of training from scratch on drosophila-vnc, then its test; needs the data (fetch_data.py drosophila-vnc).
train-quick: $(VENV)/.learn
	$(PY) train.py --domain drosophila-vnc --time_budget 7 --out_path models/quick/model.pth
	$(PY) test.py --domain drosophila-vnc --model_path models/quick/model.pth --outdir outputs/quick

test: $(VENV)/.dev
	$(PY) -m pytest -m "not gui and not slow" $(PARALLEL)

test-slow: $(VENV)/.dev
	$(PY) -m pytest -m "slow and not gui" $(PARALLEL)

# Windows under Xvfb and pages in Chromium, where these are installed; else they are skipped with a reason.
test-gui: $(VENV)/.gui
	$(PY) -m pytest -m gui -rs
	$(PY) -m pytest -m "not gui" tests/test_window*.py

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

$(VENV)/.learn: requirements.txt requirements-view.txt $(VENV)/.core | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.gui: requirements-gui.txt $(VENV)/.dev | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-gui.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt pyproject.toml $(VENV)/.learn | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@
