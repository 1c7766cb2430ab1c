PYTHON ?= python3
VENV := .venv
MLFLOW := .venv-mlflow
WHOLE := .venv-whole-mlflow
LOWEST := .venv-lowest
BIN := $(VENV)/bin
# Worker processes of pytest, more than two cores have: tests of servers wait. Each starts the servers and the browser
# that it needs once.
WORKERS ?= 4
RUN := -m pytest -n $(WORKERS)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without bytecode every worker, and every process that a test starts, compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage test-lowest test-versions test-mlflow mlflow lint format docs bench house screenshots clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group lint --group test --group docs --group bench
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

test: $(VENV)/.installed mlflow  ## every test
	$(BIN)/python $(RUN) $(PYTEST)

coverage: $(VENV)/.installed mlflow  ## every test, with branch coverage, at least 95 %
	$(BIN)/coverage erase
	$(BIN)/coverage run $(RUN) $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-lowest:                 ## core, query and page tests on the lowest versions that pyproject.toml declares
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --system-certs --compile-bytecode --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[all]' --group test
	$(LOWEST)/bin/python $(RUN) -p no:cacheprovider --deselect tests/query/test_as_mlflow.py \
		tests/asgi tests/tracing tests/sinks tests/stores tests/query tests/analysis tests/web

test-versions:               ## the whole suite on each other Python that is installed or that pyenv has: 3.12, 3.13, 3.14
	@for version in 3.12 3.13 3.14; do \
		python=; \
		for found in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
			if "$$found" -c '' 2>/dev/null; then python=$$found; fi; \
		done; \
		if [ -z "$$python" ]; then echo "Python $$version is not installed: skipped"; continue; fi; \
		echo "Python $$version: $$python"; \
		"$$python" -m venv .venv-$$version && \
		.venv-$$version/bin/python -m pip install --quiet --upgrade pip && \
		.venv-$$version/bin/python -m pip install --quiet --editable '.[all]' --group test && \
		.venv-$$version/bin/python $(RUN) -p no:cacheprovider $(PYTEST) || exit 1; \
	done

house: $(VENV)/.installed    ## the figures of the layout: modules, lines, paths of a request and a search
	$(BIN)/python -m benchmarks.house

mlflow:                      ## MLflow in an environment of its own, for the tests: it pins what we do not
	@$(MAKE) --no-print-directory $(MLFLOW)/.installed || \
		echo 'MLflow cannot be installed here: the tests against its server will be skipped.'

test-mlflow:                 ## tests/mlflow with the whole `mlflow` in the process, where other tests have `mlflow-tracing`
	$(PYTHON) -m venv $(WHOLE)
	$(WHOLE)/bin/python -m pip install --quiet --editable '.[all]' --group test --group mlflow
	$(WHOLE)/bin/python $(RUN) -p no:cacheprovider tests/mlflow

lint: $(VENV)/.installed     ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed   ## what lint would complain of, where it can be put right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed     ## the documentation as HTML in docs/_build; warnings are errors
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo 'open docs/_build/index.html'

bench: $(VENV)/.installed mlflow  ## the figures in benchmarks/README.md
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/exporter.py
	$(BIN)/python -m benchmarks.bridge
	$(BIN)/python benchmarks/search.py --traces 100000
	$(BIN)/python -m benchmarks.to_mlflow

screenshots: $(VENV)/.installed  ## the pictures in docs/screenshots, from the demo's traffic
	$(BIN)/python -m examples.screenshots

clean:
	rm -rf $(VENV) $(MLFLOW) $(WHOLE) $(LOWEST) .venv-3.* .demo .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		docs/_build
