# Each target works as the first command on a fresh machine with Python >= 3.11, and is fast the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is imported is compiled then, and written, whatever the environment says; most of what is installed never is.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
SOURCES := pyproject.toml constraints.txt rf_notebook/labextension/source.sha256
# The extension's tools find the environment's own node.
JLPM := cd labextension && PATH="$(CURDIR)/$(BIN):$$PATH" jlpm
# Jupyter asks for this where the only user is root, as in a container.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

PYTEST := $(BIN)/python -m pytest
# As many workers as there are cores; files whose tests share something expensive stay in one worker (tests/conftest.py).
PARALLEL := -n auto
# Where there is memory with room for it, the unit tests' many small folders are there.
IN_MEMORY := $(shell df -k --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 2000000 {print "TMPDIR=/dev/shm"}')

.PHONY: lab demo check unit test thorough campaign oldest newest extension bench clean

lab: $(VENV)/.lab
	$(BIN)/jupyter lab $(AS_ROOT) notebooks/101_first_experiment.ipynb

demo: $(VENV)/.run
	$(BIN)/python -W ignore -m rf_notebook.demo

# Format, lint and types, of Python and of TypeScript.
check: $(VENV)/.test $(VENV)/.node
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python labextension/build.py --check
	$(JLPM) lint

# What needs neither torch nor mlflow, which cannot be imported here: under a minute.
unit: $(VENV)/.test
	$(IN_MEMORY) $(PYTEST) -q $(PARALLEL) -o tmp_path_retention_policy=failed -p tests.without_torch -m "unit and not thorough"

# All but `make thorough`; with ARGS those tests and nothing before them.
ifdef ARGS
test: $(VENV)/.test $(VENV)/.browser
	$(PYTEST) $(ARGS)
else
test: check unit oldest $(VENV)/.browser
	$(JLPM) test
	$(PYTEST) $(PARALLEL) -m "not unit and not thorough" --durations=80
endif

# More seeds and combinations of what those test: before a release.
thorough: $(VENV)/.test
	$(PYTEST) $(PARALLEL) -m thorough

# Flipped bits, take-overs and odd values at random, for so many minutes; what came of it is in benchmarks/results/campaign.json.
MINUTES ?= 30
campaign: $(VENV)/.test
	$(BIN)/python -m tests.campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# A few tests of everything that trains, on the oldest versions that pyproject.toml allows.
oldest: $(VENV)/.oldest
	PYTHONPATH=$(VENV)/oldest $(BIN)/python -c "import transformers, trl; print('transformers', transformers.__version__, 'trl', trl.__version__)"
	PYTHONPATH=$(VENV)/oldest $(PYTEST) -q $(PARALLEL) -m oldest

# The same tests on whatever pip installs today, in an environment of its own.
newest:
	test -x $(VENV)/newest/bin/python || $(PYTHON) -m venv $(VENV)/newest
	$(VENV)/newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test,lab]'
	$(VENV)/newest/bin/python -m pytest -q $(PARALLEL) -m oldest

# Builds the JupyterLab extension anew, after a change in labextension/; what it builds is committed.
extension: $(VENV)/.node
	$(BIN)/python labextension/build.py

bench: $(VENV)/.run
	$(BIN)/python -W ignore -m benchmarks

clean:
	rm -rf $(VENV) labextension/node_modules labextension/.yarn labextension/lib build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Each holds those before it. torch alone and first: its exact version, so that pip takes the build for this machine.
$(VENV)/.run: EXTRAS =
$(VENV)/.run: HELD = .run
$(VENV)/.lab: EXTRAS = [lab]
$(VENV)/.lab: HELD = .run .lab
$(VENV)/.test: EXTRAS = [lab,test]
$(VENV)/.test: HELD = .run .lab .test
$(VENV)/.run $(VENV)/.lab $(VENV)/.test: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.$(EXTRAS)'
	touch $(addprefix $(VENV)/,$(HELD))

$(VENV)/.oldest: $(VENV)/.test constraints-oldest.txt
	rm -rf $(VENV)/oldest
	$(PIP) --no-deps --target $(VENV)/oldest --requirement constraints-oldest.txt
	touch $@

$(VENV)/.node: $(VENV)/.test labextension/yarn.lock
	$(JLPM) install --immutable
	touch $@

# The browser tests drive Chromium: the system's, Debian's where packages can be installed, playwright's own elsewhere.
$(VENV)/.browser: $(VENV)/.test
	command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { command -v apt-get && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } \
	|| $(BIN)/playwright install --with-deps chromium
	touch $@
