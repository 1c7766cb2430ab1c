PYTHON ?= python3
VENV := .venv
MLFLOW := .venv-mlflow
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test mlflow lint format bench screenshots clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group lint --group test --group bench
	touch $@

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[ui]' --group demo
	touch $@

$(MLFLOW)/.installed: pyproject.toml
	$(PYTHON) -m venv $(MLFLOW)
	$(MLFLOW)/bin/python -m pip install --quiet --upgrade pip
	$(MLFLOW)/bin/python -m pip install --quiet --group mlflow
	touch $@

demo: $(VENV)/.demo          ## the chat service under real traffic, and the page that tells its two releases apart
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed mlflow  ## every test, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mlflow:                      ## MLflow in an environment of its own, for the tests: it pins what we do not
	@$(MAKE) --no-print-directory $(MLFLOW)/.installed || \
		echo 'MLflow cannot be installed here: the tests against its server will be skipped.'

lint: $(VENV)/.installed     ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed   ## what lint would complain of, where it can be put right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed mlflow  ## the figures in benchmarks/README.md
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/exporter.py
	$(BIN)/python -m benchmarks.bridge
	$(BIN)/python benchmarks/search.py --traces 100000
	$(BIN)/python -m benchmarks.to_mlflow

screenshots: $(VENV)/.installed  ## the pictures in docs/screenshots, from the demo's traffic
	$(BIN)/python -m examples.screenshots

clean:
	rm -rf $(VENV) $(MLFLOW) .demo .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
