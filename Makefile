# Two commands set everything up on a fresh machine: `make run` and `make test`. Both make the environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8080

.PHONY: run serve weights test quick cover clients lint fix docs bench soak lock clean help

help:
	@echo "make run     serve the project's own docs, with the chat page at http://127.0.0.1:$(PORT)/"
	@echo "make test    all tests      make quick  those that start no browser and no process, in less than a minute"
	@echo "make lint    style, types, printed docs                               make fix   repair what can be repaired"
	@echo "make docs    print the tables of docs/ from the code                  make bench measure, beside LiteLLM where it is installed"
	@echo "make clients  install the client libraries that tests/test_client_libraries.py runs"
	@echo "make soak    the long tests                                           make lock  resolve the dependencies again"

.venv/run: pyproject.toml lock/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Slipway needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r lock/run.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/run lock/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r lock/dev.txt
	@touch $@

# Side by side: the server is up at once, and takes the weights when they are there.
run: .venv/run
	@$(MAKE) --no-print-directory -j2 serve weights

serve: .venv/run
	$(BIN)/slipway serve --docs docs --port $(PORT)

weights: .venv/run
	-@exec $(BIN)/slipway weights pull minilm >/dev/null 2>&1

# Most tests wait for a server or a browser, so more workers run than there are cores. Each worker takes the next
# test, or the next group of tests that share a server. Compiled files are kept: hundreds of processes read them.
WORKERS ?= auto
PARALLEL := -n $(WORKERS)
test quick cover soak: export PYTHONDONTWRITEBYTECODE :=

test: .venv/dev
	$(BIN)/python -m pytest $(PARALLEL) --durations=10 $(PYTEST_ARGS)

quick: .venv/dev
	$(BIN)/python -m pytest $(PARALLEL) -m "not process and not browser" $(PYTEST_ARGS)

# Child processes are measured too, if each starts an interpreter; see [tool.coverage] in pyproject.toml.
cover: export COLD_STARTS := 1
cover: .venv/dev
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

soak: .venv/dev
	$(BIN)/python -m pytest -m soak --timeout 1800

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/printed.py --check

fix: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/printed.py

docs: .venv/dev
	$(BIN)/python docs/printed.py

bench: .venv/dev weights
	$(BIN)/python bench/gateway.py --shared
	$(BIN)/python bench/memory.py --requests 100000 --streams 10000
	$(BIN)/python bench/start.py
	$(BIN)/python bench/retrieval.py
	$(BIN)/python bench/fusion.py
	$(BIN)/python bench/abstention.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/citations.py
	$(BIN)/python bench/choosing.py
	$(BIN)/python bench/quotes.py
	$(BIN)/python bench/rules.py
	$(BIN)/python bench/semantic.py
	$(BIN)/python bench/operations.py
	$(BIN)/python bench/followups.py
	$(BIN)/python bench/answers.py
	$(BIN)/python bench/faults.py
	$(BIN)/python bench/outage.py
	$(BIN)/python bench/drops.py
	$(BIN)/python bench/cache.py
	$(BIN)/python bench/telemetry.py observe
	$(BIN)/python bench/telemetry.py cost

# The lock files hold hashes and no addresses; uv resolves for every platform at once.
RESOLVE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade pyproject.toml lock/build.in
lock: .venv/dev
	$(RESOLVE) --extra knowledge --extra rules --extra vectors -o lock/run.txt
	$(RESOLVE) --extra knowledge --extra rules --extra vectors --extra local --extra compress --extra redis --extra dev lock/tools.in -c lock/run.txt -o lock/dev.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade tests/clients/requirements.in -o lock/clients.txt

# Client libraries that tests run against the server, in environments of their own; see tests/clients.
clients: .venv/clients

.venv/clients: .venv/dev lock/clients.txt tests/clients/node/package-lock.json
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	$(BIN)/uv pip install -q --python .venv-clients/bin/python --require-hashes -r lock/clients.txt
	cd tests/clients/node && npm ci --silent --no-audit --no-fund
	@touch $@

clean:
	rm -rf .venv .venv-clients tests/clients/node/node_modules bench/.build tests/.out
