# Two commands matter to a new user: `make demo` and `make test`. Each sets up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test lint airflow bench clean
.DEFAULT_GOAL := setup

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[airflow,torch,zookeeper,test,dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/python -m tests.demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

airflow: $(READY)
	$(BIN)/python -m tests.airflow.local

bench: $(READY)
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv .airflow build dist *.egg-info
