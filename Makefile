# lastcall. A newcomer needs two commands: `make run` and `make test`. `make help` lists the others.
#
#   PYTHON=/path/to/python   the Python for .venv (default: what scripts/find-python prints)
#   PORT=8000                for `make run`
#   TESTS=tests/wire         for `make check`: some of the tests, such as companions/once/tests
#   DURATION=600             for `make soak` (600) and `make fuzz` (300), in seconds

VENV     := .venv
COMPAT   := .venv-3.11
BIN      := $(VENV)/bin
MODULES  := $(shell find src -name '*.pyx')
COMPILED := setup.py $(MODULES) $(shell find src -name '*.pxd')
TESTS    ?= all
MARKERS  ?= not slow and not soak and not wheels
WAITING  := tests/process/ tests/proxies/ tests/server/
SUITES   := $(filter-out $(WAITING),$(wildcard tests/*/)) companions/once/tests companions/drill/tests
SPREAD   := -n 3 --dist loadfile
PYTEST   := -m pytest -q -p testing.failures

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
export PYTHON PORT

.PHONY: help run build lint check check-3.11 test test-all wheels bench soak fuzz findings valgrind asan coverage clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(BIN)/.built $(BIN)/.installed ## build what is stale, start the demo, say which URL to open
	@scripts/demo $(BIN)

build: $(BIN)/.built ## compile what is stale, in place

lint: $(BIN)/.built $(BIN)/.tools ## ruff, mypy, import-linter, the stubs of the compiled modules
	@echo "--> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --diff --quiet .
	@echo "--> mypy"
	@$(BIN)/mypy --no-error-summary
	@echo "--> import-linter"
	@$(BIN)/lint-imports --no-logo >build/imports.txt 2>&1 || { cat build/imports.txt; exit 1; }
	@echo "--> stubs"
	@MYPYPATH=src $(BIN)/stubtest --concise --ignore-disjoint-bases --ignore-unused-allowlist \
		--allowlist tests/layering/stubtest-allowlist.txt $(subst /,.,$(patsubst src/%.pyx,%,$(MODULES)))

test: $(BIN)/.built $(BIN)/.tools ## what CI runs: lint, all tests on 3.13, those that are not slow on 3.11; one list of failures
	@scripts/test-deps
	@MARKERS="not slow and not soak and not wheels" scripts/run-all lint check $$(if $(have-3.11); then echo check-3.11; fi)

test-all: $(BIN)/.built $(BIN)/.tools ## lint, all tests on both, and the three wheels; one list of failures
	@scripts/test-deps
	@MARKERS="not soak and not wheels" scripts/run-all lint check $$(if $(have-3.11); then echo check-3.11; fi) wheels

wheels: $(BIN)/.built $(BIN)/.tools ## build the three wheels, and use each in an empty environment (needs the package index)
	@echo "--> wheels"
	@$(BIN)/python $(PYTEST) -s -m wheels tests/wheels

check: $(BIN)/.built $(BIN)/.tools ## tests only, in .venv: all of them, or TESTS=...
	@echo "--> tests, $$($(BIN)/python --version)"
ifeq ($(TESTS),all)
	@# Those that wait for processes most of the time run beside the others.
	@mkdir -p build; $(BIN)/python $(PYTEST) -n 2 --dist loadfile $(WAITING) >build/tests-waiting.txt 2>&1 & waiting=$$!; \
		$(BIN)/python $(PYTEST) $(SPREAD) $(SUITES); code=$$?; \
		wait $$waiting || code=1; cat build/tests-waiting.txt; exit $$code
else
	@$(BIN)/python $(PYTEST) $(TESTS)
endif

check-3.11: $(COMPAT)/bin/.built $(COMPAT)/bin/.tools
	@echo "--> tests, $$($(COMPAT)/bin/python --version): $(MARKERS)"
	@$(COMPAT)/bin/python $(PYTEST) $(SPREAD) -m "$(MARKERS)"

bench: $(BIN)/.built $(BIN)/.tools ## compare with other servers, measure once (minutes; wants a quiet machine)
	@$(BIN)/python bench/run.py
	@scripts/test-deps
	@$(BIN)/python bench/run.py once

soak: $(BIN)/.built $(BIN)/.tools ## mixed traffic for DURATION=600 seconds: memory, descriptors and tasks stay flat; then stops in numbers, and a deploy over three hosts (root)
	@scripts/test-deps
	@echo "--> soak: $(or $(DURATION),600) s"
	@LASTCALL_SOAK_SECONDS=$(or $(DURATION),600) $(BIN)/python -m pytest -q -s -m soak \
		--timeout=$$(($(or $(DURATION),600) + 300))

fuzz: $(BIN)/.built $(BIN)/.tools ## fuzz the codecs for DURATION=300 seconds (atheris)
	@$(BIN)/python -m pip install -qq atheris
	@nice -n 19 $(BIN)/python tests/fuzz/run.py --seconds $(or $(DURATION),300)

findings: ## look again at what surprised us in other software (installs pinned packages; minutes; not part of CI)
	@findings/run

valgrind: $(BIN)/.built $(BIN)/.tools ## memory checks of the codecs: valgrind's memcheck
	@$(BIN)/python scripts/valgrind

asan: $(BIN)/.tools ## the tests of the compiled modules with AddressSanitizer (a scratch build)
	@PYTHON=$(BIN)/python scripts/asan tests/wire tests/asgi tests/connection tests/net tests/drain tests/notice tests/observe

coverage: $(BIN)/.tools ## line coverage, compiled modules included (slow: they are built with line tracing)
	@rm -f $(BIN)/.built
	@LASTCALL_LINETRACE=1 $(BIN)/python setup.py -q build_ext --inplace
	@$(BIN)/python -m pip install -qq coverage
	@PYTHONPATH=. $(BIN)/python -m coverage run -m pytest -q -m "not slow and not soak and not wheels" $(filter-out all,$(TESTS))
	@PYTHONPATH=. $(BIN)/python -m coverage report

clean: ## remove everything that was built; the virtual environments stay
	@rm -rf build dist .coverage htmlcov .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@rm -rf src/lastcall.egg-info $(VENV)/bin/.built $(COMPAT)/bin/.built
	@rm -rf $(VENV)/bin/.installed $(VENV)/bin/.tools $(COMPAT)/bin/.installed $(COMPAT)/bin/.tools
	@find src -name '*.so' -delete
	@find companions -name build -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +
	@find src companions testing tests demo -name __pycache__ -prune -exec rm -rf {} +

# A second Python is worth a run where there is a 3.11, and .venv is not one itself.
have-3.11 = ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	&& { $(COMPAT)/bin/python --version || scripts/find-python 3.11; } >/dev/null 2>&1

# Stamps live in the environment that they speak of. One that does not run, or was copied from elsewhere, has none.
$(foreach venv,$(VENV) $(COMPAT),$(shell \
	test "$$(cat $(venv)/bin/.made 2>/dev/null)" = "$(CURDIR)/$(venv)" && $(venv)/bin/python -c '' 2>/dev/null \
	|| rm -f $(venv)/bin/.made $(venv)/bin/.built $(venv)/bin/.installed $(venv)/bin/.tools))

.PRECIOUS: %/bin/.made %/bin/.built %/bin/.installed %/bin/.tools

%/bin/.made:
	@scripts/make-venv $* $(patsubst .venv-%,%,$(filter .venv-%,$*))
	@echo "$(CURDIR)/$*" >$@

# build/flavour-*: what setup.py was last told to build (release, line tracing, sanitizer), for each version of Python.
%/bin/.built: $(COMPILED) $(wildcard build/flavour-*) %/bin/.made
	@$*/bin/python setup.py -q build_ext --inplace
	@touch $@

%/bin/.installed: pyproject.toml %/bin/.made | %/bin/.built
	@echo "--> $*: lastcall itself, and click"
	@$*/bin/python -m pip install -qq --no-build-isolation -e .
	@touch $@

# The three packages by one command: none of them is in an index, so pip has to be given all at once.
%/bin/.tools: pyproject.toml $(wildcard companions/*/pyproject.toml) %/bin/.made | %/bin/.built
	@echo "--> $*: the three packages, and what their tests need (a minute or two the first time)"
	@$*/bin/python -m pip install -qq --no-build-isolation -e "$(if $(filter $(VENV),$*),.[test$(,)lint],.[test])" \
		-e "companions/once[redis,postgres]" -e "companions/drill[yaml]"
	@touch $@ $*/bin/.installed

, := ,
