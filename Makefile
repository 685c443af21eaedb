# Everything a developer does here; `make` alone lists it. Needs Python 3.11+ and make; the rest is set up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Tests start many processes of the stages: compiled once and kept, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check format generate docs soak bench up down lock release-check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the pinned dependencies and Attributary itself

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV), once: a minute or two."
	$(BIN)/python -m pip install --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## run the whole pipeline on real data, on this machine, in about a minute (ARGS="--keep" leaves it running)
	$(BIN)/attributary demo $(ARGS)

# -n auto: two processes more than there are cores (tests/fixtures/parallel.py); ARGS="-n 0" runs all in one.
test: $(READY) ## every test, on a real Postgres and a real Kafka (REQUIRE_KAFKA=1: never without one)
	$(BIN)/pytest -n auto $(ARGS)

quick: $(READY) ## the tests that need neither a broker nor a database, in less than a minute
	$(BIN)/pytest -n auto --hypothesis-profile=quick -m "not kafka and not postgres and not slow" $(ARGS)

check: $(READY) ## style, types, layers, contracts and generated files
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-types check-rest

.PHONY: check-types check-rest
check-types:
	$(BIN)/mypy

check-rest:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/checks/tree.py
	$(BIN)/python -m attributary.schemas.compatibility
	$(BIN)/python -m attributary.schemas.asyncapi_check
	$(BIN)/attributary settings --check docs/reference/settings.md
	$(BIN)/attributary metrics --check docs/reference/metrics.md
	$(BIN)/attributary report list --check docs/reference/reports.md
	$(BIN)/python deploy/grafana/generate.py --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(READY) ## let ruff lay out the code and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(READY) ## write the files that are made from code: settings and metrics pages, dashboards
	$(BIN)/attributary settings --markdown > docs/reference/settings.md
	$(BIN)/attributary metrics --markdown > docs/reference/metrics.md
	$(BIN)/attributary report list --markdown > docs/reference/reports.md
	$(BIN)/python deploy/grafana/generate.py

docs: $(READY) ## build the docs site into build/site; broken links and unknown references fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file deploy/site/mkdocs.yml
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

soak: $(READY) ## a million mutated records; half an hour of load and faults (SOAK_SECONDS, SOAK_SEED, SOAK_RATE)
	ATTRIBUTION_FUZZ_RECORDS=$${ATTRIBUTION_FUZZ_RECORDS:-1000000} $(BIN)/pytest tests/model/test_model_fuzz.py -s -k exactly
	SOAK_SECONDS=$${SOAK_SECONDS:-1800} $(BIN)/pytest tests/faults/test_faults_soak.py $(ARGS)

bench: $(READY) ## throughput and latency beside a floor job and a peer
	$(BIN)/python -m benchmarks $(ARGS)

# Docker compose where an engine answers, else real Kafka and Postgres as local processes.
DOCKER := docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1
up: $(READY) ## a local stack that keeps its data: broker, database, all consumers (Docker or local processes)
	@if $(DOCKER); then $(MAKE) --no-print-directory .env && docker compose up --build $(ARGS); \
		else $(BIN)/attributary up $(ARGS); fi

down: $(READY) ## stop what `make up` started, and keep the data
	@if $(DOCKER); then docker compose down $(ARGS); else $(BIN)/attributary down $(ARGS); fi

# Passwords of the containers, made up once.
.env:
	@umask 077; $(PYTHON) -c 'import re, secrets, pathlib; \
		print(re.sub(r"(?m)(PASSWORD=)$$", lambda m: m[1] + secrets.token_urlsafe(18), pathlib.Path("deploy/env.example").read_text()))' > $@

# Chained, so that a package has one version in all three files. UPGRADE=--upgrade takes newer versions.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(UPGRADE)
lock: $(READY) ## pin requirements/*.in into *.txt with hashes and without addresses
	$(COMPILE) requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) requirements/embedded.in -c requirements/runtime.txt -o requirements/embedded.txt
	$(COMPILE) requirements/image.in -c requirements/runtime.txt -o requirements/image.txt
	$(COMPILE) requirements/dev.in -c requirements/embedded.txt -c requirements/image.txt -o requirements/dev.txt
	$(COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	@! grep -n '://' requirements/*.txt || { echo "the locked files must not name addresses" >&2; exit 1; }

release-check: $(READY) ## build sdist and wheel, install the wheel in clean environments, run the demo from it
	$(BIN)/python tests/checks/release.py

clean: ## remove .venv, caches and the data of local stacks
	rm -rf $(VENV) .attributary .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@cache="$${XDG_CACHE_HOME:-$$HOME/.cache}/attributary"; test ! -d "$$cache" || \
		echo "kept: $$cache (downloads of an installed package; remove it by hand)"
