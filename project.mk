# Everything there is to do with the project, under one name each.
#   make -f project.mk              what there is
#   make -f project.mk test         one of it
# GNU make 3.81 and later; backend/Makefile offers the same names.

ROOT := $(shell cd "$(dir $(lastword $(MAKEFILE_LIST)))" && pwd)
BACKEND := $(ROOT)/backend
VENV ?= $(BACKEND)/.venv
PY := $(VENV)/bin/python
SHELL := /bin/sh
.DEFAULT_GOAL := help

# Six processes that each compile their imports anew would start half as fast.
RUN := cd "$(BACKEND)" && env -u PYTHONDONTWRITEBYTECODE "$(PY)"
CLI := $(RUN) -m trading_api
PYTEST := $(RUN) -m pytest
SOURCES := src tests benchmarks ../scripts
COMMA := ,

# The first Python of the versions that the lock is for; PYTHON=… chooses one.
FIND_PYTHON := for p in "$(PYTHON)" python3 python3.11 python3.12 python3.13 python; do \
	if [ -n "$$p" ] && "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	>/dev/null 2>&1; then break; fi; p=; done; \
	if [ -z "$$p" ]; then echo "error: Python 3.11, 3.12 or 3.13 is needed; PYTHON=/path/to/python chooses one" >&2; exit 1; fi

##@ install
install: ## create backend/.venv from the hashed lock
	@$(FIND_PYTHON); "$$p" "$(ROOT)/scripts/install.py" run --venv "$(VENV)"

install-test: ## the same with what tests and checks need
	@$(FIND_PYTHON); "$$p" "$(ROOT)/scripts/install.py" test --venv "$(VENV)"

ensure-python: ## say which Python is used
	@$(FIND_PYTHON); "$$p" -c 'import sys; print(sys.executable, sys.version.split()[0])'

install-hooks: ## check sources before each commit
	@printf '#!/bin/sh\nexec make -f project.mk lint-check\n' > "$(ROOT)/.git/hooks/pre-commit"
	@chmod +x "$(ROOT)/.git/hooks/pre-commit"

##@ run
backend-dev-multi: install ## install, then start everything: one process per module behind nginx
	@$(CLI) start $(if $(config),"$(abspath $(config))")

backend-status: ## show every process
	@$(CLI) status

backend-logs: ## show the logs; module=broker, args="-f --level WARNING"
	@$(CLI) logs $(module) $(args)

backend-stop: ## stop everything
	@$(CLI) stop

backend-restart: ## restart everything, or module=broker
	@$(CLI) restart $(module)

health: ## ask the running platform how it is
	@$(CLI) health

dev: install ## serve ENABLED_MODULES in one process with reload and a debugger's port
	@$(CLI) dev --debug

dev-no-debug: install ## the same without a debugger's port
	@$(CLI) dev

kill-dev: ## stop what dev started
	@$(CLI) stop-dev

list-modules: install ## list the modules there are
	@$(CLI) list-modules

##@ test
test: install-test ## the whole suite
	@$(PYTEST) -n auto -m "not fleet and not browser and not nightly" $(args)
	@$(PYTEST) -n 0 -m "(fleet or browser) and not nightly" $(args)

test-modules: install-test ## some modules: modules=broker,datafeed
	@$(PYTEST) -n 0 -m "not nightly" $(foreach each,$(subst $(COMMA), ,$(modules)),src/trading_api/modules/$(subst -,_,$(each)))

test-module-%: install-test
	@$(PYTEST) -n 0 -m "not nightly" src/trading_api/modules/$(subst -,_,$*)

test-integration: install-test ## journeys over the real multi-process stack
	@$(PYTEST) -n 0 -m "fleet and not nightly"

test-boundaries: install-test ## the import walls, each with a planted violation
	@cd "$(BACKEND)" && PYTHONPATH=src "$(VENV)/bin/lint-imports" --no-cache
	@$(PYTEST) -n 0 tests/architecture

test-smoke: install-test ## pages in a real browser
	@$(PYTEST) -n 0 -m browser

test-faults: install-test ## kill, freeze and corrupt what runs
	@$(PYTEST) -n 0 -m "not nightly" tests/faults

test-nightly: install-test ## the same at many instants, on both databases; FAULT_ROUNDS=20 FAULT_SEED=…
	@$(PYTEST) -n 0 -s -m nightly $(args)

test-mutation: install-test ## plant bugs in the ledger and count those that its tests catch
	@cd "$(BACKEND)" && PYTHONPATH=src "$(PY)" -m benchmarks.mutation $(args)

test-coverage: install-test ## a map of what is untested
	@$(PYTEST) -n auto -m "not browser and not nightly" --cov=trading_api --cov-branch --cov-report=term-missing:skip-covered

##@ quality
check: install-test lint-check format-check type-check test-walls render-check generate-check lint-response-models ## everything that a change must pass

lint: install-test ## mend what ruff can mend
	@cd "$(BACKEND)" && "$(VENV)/bin/ruff" check --fix $(SOURCES)

lint-check: install-test ## ruff and the house's own rules
	@cd "$(BACKEND)" && "$(VENV)/bin/ruff" check $(SOURCES)
	@$(RUN) ../scripts/house_rules.py

format: install-test ## format the sources
	@cd "$(BACKEND)" && "$(VENV)/bin/ruff" format $(SOURCES)

format-check: install-test
	@cd "$(BACKEND)" && "$(VENV)/bin/ruff" format --check $(SOURCES)

type-check: install-test ## mypy --strict
	@cd "$(BACKEND)" && "$(VENV)/bin/mypy" src tests benchmarks

lint-response-models: install ## every route says what it answers
	@$(RUN) ../scripts/generate.py responses

test-walls: install-test
	@cd "$(BACKEND)" && PYTHONPATH=src "$(VENV)/bin/lint-imports" --no-cache

##@ generate
generate: install ## write the specs under docs/api and the generated tables of the docs
	@$(RUN) ../scripts/generate.py write

generate-check: install
	@$(RUN) ../scripts/generate.py check

render: install ## write the deployment files of production from deploy/production.yaml
	@$(CLI) render --validate

render-check: install
	@$(CLI) render --check

golden: install-test ## accept the present outputs as golden; read the difference before you commit
	@cd "$(BACKEND)" && UPDATE_GOLDEN=1 "$(PY)" -m pytest -n 0 -p no:randomly -k golden

##@ measure
bench: install-test ## ratios to peers in one run, into docs/benchmarks; name=http, quick=1
	@$(RUN) -m benchmarks $(name) $(if $(quick),--quick)

##@ operate
migrate: install ## bring every database to its newest revision
	@$(CLI) migrate

backup: install ## copy every database at one instant, under load; to=FOLDER
	@$(CLI) backup $(to)

restore: install ## put a backup back and prove it; the fleet must be stopped; from=FOLDER
	@$(CLI) restore "$(from)"

verify: install ## prove ledgers, orders, transfers and hash chains from scratch
	@$(CLI) verify

logs-tail: ## follow all logs
	@$(CLI) logs -f

logs-tail-nginx: ## follow nginx's
	@$(CLI) logs -f nginx

logs-clean: ## remove log files of a stopped platform
	@$(CLI) logs-clean

clean: clean-cache ## stop, and remove the environment; data and keys stay
	@if [ -x "$(PY)" ]; then $(CLI) stop; fi
	@rm -rf "$(VENV)"

clean-data: ## stop, and remove databases, keys and logs for good
	@if [ -x "$(PY)" ]; then $(CLI) stop; fi
	@rm -rf "$(BACKEND)/.local"

clean-cache: ## remove the tools' caches
	@rm -rf "$(BACKEND)/.mypy_cache" "$(BACKEND)/.ruff_cache" "$(BACKEND)/.pytest_cache" \
		"$(BACKEND)/.hypothesis" "$(BACKEND)/.import_linter_cache" "$(BACKEND)/htmlcov"
	@find "$(BACKEND)/src" "$(BACKEND)/tests" -name __pycache__ -type d -prune -exec rm -rf {} +

# The same under the names they also go by.
setup: install
run dev-backend: dev
test-all: test
test-cov: test-coverage
format-all: format
generate-specs export-openapi export-asyncapi: generate
daemon-start: backend-dev-multi
daemon-stop: backend-stop
daemon-restart: backend-restart
daemon-status: backend-status
daemon-logs: backend-logs

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z-]*:.*## / { printf "  %-21s %s\n", $$1, $$2 }' "$(ROOT)/project.mk"

.PHONY: install install-test ensure-python install-hooks backend-dev-multi backend-status \
	backend-logs backend-stop backend-restart health dev dev-no-debug kill-dev list-modules test \
	test-modules test-integration test-boundaries test-smoke test-faults test-nightly test-coverage check lint \
	lint-check lint-response-models format format-check type-check test-walls generate \
	generate-check generate-specs export-openapi export-asyncapi render render-check golden migrate \
	backup restore verify test-mutation \
	logs-tail logs-tail-nginx logs-clean bench clean clean-data clean-cache setup run dev-backend test-all test-cov \
	format-all daemon-start daemon-stop daemon-restart daemon-status daemon-logs help
