PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint format bench clean

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

demo: $(VENV)/.demo          ## the chat service under real traffic, and what Whence knows of it
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed     ## every test, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/.installed     ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed   ## what lint would complain of, where it can be put right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed    ## the figures in benchmarks/README.md
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/exporter.py
	$(BIN)/python benchmarks/search.py --traces 100000

clean:
	rm -rf $(VENV) .demo .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
