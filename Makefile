# Two commands for a newcomer: `make serve` and `make test`. Each installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE_INSTALLED := $(VENV)/.serve-installed
DEV_INSTALLED := $(VENV)/.dev-installed
MUTANTS := .venv-mutants
CONSOLE := receiver/web/console
TRANSLATIONS := receiver/translations
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: serve demo test test-thorough check bench format translations lock clean

serve: $(SERVE_INSTALLED)
	$(BIN)/receiver serve

demo: $(SERVE_INSTALLED)
	@$(BIN)/receiver demo

# What is drawn by lot in the tests is another draw each day; `make test TEST_SEED=20261130` repeats a day's.
TEST_SEED ?= $(shell date +%Y%m%d)

# Four at once on two cores: a test waits for its servers half of the time. Of the examples that are tried on a
# database, a third; and of a test with more than three cases, the day's third.
test: $(DEV_INSTALLED)
	RECEIVER_TEST_EXAMPLES=1/3 $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder \
		-m 'not thorough' --hypothesis-seed=$(TEST_SEED) $(ARGS)

# The slow matrices: fuzzing of the API, every page in every language, theme and width; all examples; and the cases that
# the day's third leaves. They use the cores up by twos. `RECEIVER_TEST_SAMPLE=2/3 make test-thorough` runs the second third of it.
test-thorough: $(DEV_INSTALLED)
	$(BIN)/pytest -n 2 --dist load -m 'thorough or hypothesis' --timeout=600 --hypothesis-seed=$(TEST_SEED) $(ARGS)

# What the tests of values hold: each small change of a module of [tool.mutmut] that no test notices. `ARGS` names some,
# as 'receiver.core.numbers*'; `mutmut browse` shows them. It has an environment of its own: it brings setproctitle, with
# which gunicorn renames its processes, and overwrites the variables that recorder.c reads.
.PHONY: mutants
mutants: $(DEV_INSTALLED)
	rm -rf $(MUTANTS)
	cp -a $(VENV) $(MUTANTS)
	$(MUTANTS)/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	$(MUTANTS)/bin/python -m mutmut run --max-children 2 $(ARGS)
	$(MUTANTS)/bin/python -m mutmut results | grep -v "not checked"

# HTTP clients that nobody here wrote. What they need comes from Debian (root) and npm; what is left out is said.
.PHONY: test-senders
test-senders: $(DEV_INSTALLED)
	$(BIN)/python -m tests.senders
	$(BIN)/pytest tests/senders/real_clients.py $(ARGS)

# Public tools that load, read and check what is offered to them, each in an environment of its own, by locks of their
# own; from PyPI and npm. `ARGS="-k dlt"` picks one.
.PHONY: test-tools tools-lock
test-tools: $(DEV_INSTALLED)
	$(BIN)/python -m tests.tools
	$(BIN)/pytest tests/tools/real_*.py $(ARGS)

tools-lock: $(DEV_INSTALLED)
	$(PIP_INSTALL) uv
	for name in load dbt singer; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
			--output-file tests/tools/locks/$$name.lock tests/tools/locks/$$name.in || exit 1; \
	done
	cd tests/tools/npm && rm -f package-lock.json && \
		npm install --package-lock-only --ignore-scripts --no-audit --no-fund --silent

# Robust statements: each migration is a transaction, and what is none may be repeated; a test kills an upgrade.
# Views for SQL are taken away and made anew in one transaction.
SQUAWK_EXCEPT := prefer-bigint-over-int,prefer-bigint-over-smallint,prefer-text-field,prefer-robust-stmts,ban-drop-view,ban-drop-function
check: $(DEV_INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/alembic upgrade head --sql 2>/dev/null | $(BIN)/squawk --exclude $(SQUAWK_EXCEPT)
	$(BIN)/python -m tests.supply licences
	$(BIN)/python deploy/lock.py all > $(VENV)/all.lock
	$(BIN)/python -m tests.supply sbom $(VENV)/all.lock $(VENV)/receiver.cdx.json
	$(BIN)/python -m tests.supply faults $(VENV)/all.lock

bench: $(DEV_INSTALLED)
	$(BIN)/python -m tests.bench $(ARGS)

# The pictures that pages of the documentation show, of fixed data: NAME-LANGUAGE.png in deploy/docs/images.
.PHONY: screenshots
screenshots: $(DEV_INSTALLED)
	$(BIN)/python -m tests.screenshots $(ARGS)

# dist/receiver-VERSION-bundle.tar.gz: installs with every extra, without a network, on a machine like this one.
.PHONY: bundle
bundle: $(DEV_INSTALLED)
	PYTHON=$(BIN)/python deploy/bundle.sh

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# After any change of a text: takes new messages into the catalogue, drops old ones, and compiles it as it is. What has
# no translation yet is found by tests/web/test_translations.py.
translations: $(SERVE_INSTALLED)
	$(BIN)/pybabel --quiet extract --mapping-file $(TRANSLATIONS)/babel.cfg --keywords lazy_gettext \
		--no-location --output-file $(VENV)/messages.pot receiver
	$(BIN)/pybabel --quiet update --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date --width 120 \
		--input-file $(VENV)/messages.pot --output-dir $(TRANSLATIONS)
	$(BIN)/pybabel --quiet compile --directory $(TRANSLATIONS)

# After any change of a setting, a command, a metric, a code, a status or an alarm: env.example and the reference pages.
# Chinese is in deploy/docs/zh-CN/reference.po, or in the catalogue.
.PHONY: reference
reference: $(DEV_INSTALLED)
	$(BIN)/python -m tests.reference

# requirements.lock, after a change of what pyproject.toml wants. Versions stay while they can; `ARGS=--upgrade` takes the
# newest of all.
lock: $(DEV_INSTALLED)
	$(PIP_INSTALL) uv
	$(BIN)/python deploy/lock.py make $(ARGS)

clean:
	rm -rf $(VENV) .venv-tools .pytest_cache .mypy_cache .ruff_cache .hypothesis mutants $(MUTANTS)

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(SERVE_INSTALLED): $(BIN)/pip requirements.lock pyproject.toml
	$(BIN)/python deploy/lock.py postgres > $(VENV)/postgres.lock
	$(PIP_INSTALL) --require-hashes --requirement $(VENV)/postgres.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(DEV_INSTALLED): $(SERVE_INSTALLED)
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	touch $@
