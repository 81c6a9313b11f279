# Two commands matter to a new user: `make demo` and `make test`. Each sets up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOLS := .venv-release

APT := DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends
ZOOKEEPER := /usr/share/java/zookeeper.jar

# Some images set it. The tests start some thousand processes, each of which would compile all that
# it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test long soak zookeeper servers network browser lint docs airflow bench
.PHONY: gpu dist release-check audit clean
.DEFAULT_GOAL := setup

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[airflow,torch,zookeeper,cli,frameworks,test,docs,dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/python -m tests.demo

# Four processes on two cores: most tests wait for others most of the time.
test: $(READY) zookeeper servers browser
	$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder \
		--max-worker-restart 1

# Tests with random days, jobs and kills, many times as many as in `make test`. It takes a quarter
# of an hour at least.
# LLUTIL_TEST_SEED=1 in the environment repeats the kills of that seed; a failure prints it.
LONG := LLUTIL_TEST_KILLS=50 LLUTIL_TEST_SAMPLE_KILLS=20 LLUTIL_TEST_HANG_JOBS=1000 \
	LLUTIL_SIMULATION_DAYS=50000
long: $(READY) zookeeper servers
	$(LONG) $(BIN)/python -m pytest -n 2 -rP --timeout 0 -o faulthandler_timeout=0 \
		tests/simulation/test_simulation.py tests/simulation/test_hang_jobs.py \
		tests/integration/agent/guardian/test_random_kills.py \
		tests/integration/rendezvous/test_killed_trainings.py \
		tests/airflow/test_killed_trainings.py

# Jobs in a deployment of two hosts under random faults: docs/soak.md. SEED repeats a plan.
SECONDS := 600
LEDGER := etcd
soak: $(READY) zookeeper servers network
	$(BIN)/python -m tests.soak --seconds $(SECONDS) --ledger $(LEDGER) $(if $(SEED),--seed $(SEED))

# The tests start servers of their own. etcd comes with the Python packages, ZooKeeper and Java from
# Debian.
zookeeper:
	@if [ -e $(ZOOKEEPER) ] && command -v java > /dev/null; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && $(APT) \
			zookeeper default-jre-headless; \
	else \
		echo "the tests need a ZooKeeper: as root, run 'make zookeeper', or" >&2; \
		echo "'apt-get install zookeeper default-jre-headless'" >&2; \
		exit 1; \
	fi

# PostgreSQL and Redis, for an Airflow that is deployed with them. Debian starts the services that
# it installs, unless a policy forbids it.
POLICY := /usr/sbin/policy-rc.d
servers:
	@if ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 \
		&& command -v redis-server > /dev/null; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		ours=; \
		if [ ! -e $(POLICY) ]; then \
			ours=yes; printf '#!/bin/sh\nexit 101\n' > $(POLICY); chmod 755 $(POLICY); \
		fi; \
		apt-get update -qq && $(APT) \
			postgresql redis-server; \
		status=$$?; \
		[ -z "$$ours" ] || rm $(POLICY); \
		exit $$status; \
	else \
		echo "the tests need PostgreSQL and Redis: as root, run 'make servers', or" >&2; \
		echo "'apt-get install postgresql redis-server'" >&2; \
		exit 1; \
	fi

# What makes hosts of network namespaces.
network:
	@if command -v ip > /dev/null && command -v unshare > /dev/null; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && $(APT) iproute2 util-linux; \
	else \
		echo "the soak needs iproute2: as root, run 'make network', or" >&2; \
		echo "'apt-get install iproute2 util-linux'" >&2; \
		exit 1; \
	fi

# Debian's Chromium, which looks at the tab in Airflow's UI. With LLUTIL_SCREENSHOTS=FOLDER in the
# environment of the tests, its pictures are kept there.
browser:
	@if command -v chromium > /dev/null; then \
		:; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && $(APT) \
			chromium fonts-dejavu-core; \
	else \
		echo "the tests need Chromium: as root, run 'make browser', or" >&2; \
		echo "'apt-get install chromium'" >&2; \
		exit 1; \
	fi

lint: $(READY) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! LC_ALL=C.UTF-8 grep -nE '^[^|].{100}' *.md docs/*.md docs/*/*.md Makefile setup.cfg \
		pyproject.toml || { echo 'lines over 100 columns' >&2; exit 1; }

# The pages of docs/, into build/docs. Warnings are errors: dead links and missing anchors too.
docs: $(READY)
	$(BIN)/python -m sphinx -b html -W -n --keep-going -q docs build/docs

airflow: $(READY)
	$(BIN)/python -m tests.airflow.local

# A quarter of an hour. It writes benchmarks/; `.venv/bin/python -m tests.bench --write` fills the
# tables of README and docs from there.
bench: $(READY) zookeeper servers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.bench

# On a host with a GPU, and a torch that is built for it: at most 4 minutes, and a table. It is no
# part of the tests.
gpu: $(READY)
	$(BIN)/python -m tests.gpu

# What a release is made and looked at with, in an environment of its own.
$(TOOLS)/.ready: setup.cfg
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt '.[release]'
	@touch $@

# The wheel is built from the sdist.
dist: $(TOOLS)/.ready
	rm -rf dist
	$(TOOLS)/bin/python -m build --outdir dist . > dist.log || { cat dist.log; exit 1; }
	rm -rf dist.log *.egg-info
	$(TOOLS)/bin/python -m twine check --strict dist/*
	$(TOOLS)/bin/python -m tests.release.contents dist

# The wheel in two fresh environments, with torch alone and with Airflow alone. PYTHON chooses the
# interpreter.
release-check: dist
	$(PYTHON) -m tests.release.check dist

# Of all that is needed at run time. Where no vulnerability service can be reached, it fails and
# says so; LLUTIL_AUDIT_SERVICE=none looks at licences alone.
audit: $(READY) $(TOOLS)/.ready
	$(BIN)/python -m tests.release.audit $(TOOLS)/bin/pip-audit

clean:
	rm -rf $(TOOLS) .venv .airflow build dist *.egg-info
