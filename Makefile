# Everything a newcomer needs: `make help`.
#
# Tools that are no part of the code go into .tools/: Envoy and Python packages at the versions that the requirements
# files pin, Redis, PostgreSQL and load generators from the distribution. Nothing needs root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The parts share a lock (cargo) or a folder (.tools/venv).
.NOTPARALLEL:

# Where `make up` listens, always on 127.0.0.1.
export ENVOY_PORT ?= 10000
export ADMIN_PORT ?= 9901
export REST_PORT ?= 8080
export GRPC_PORT ?= 8081
export STANDIN_PORT ?= 9000

CARGO ?= cargo
FUZZ_SECONDS ?= 600

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build envoy ## See it work: a metered stream, a limit, the usage that was recorded (stops by itself)
	@target/release/tollgate-local demo

.PHONY: up
up: build envoy ## Start Envoy, the service and an LLM stand-in, and leave them running
	@target/release/tollgate-local up

.PHONY: down
down: ## Stop what `make up` started
	@[ ! -x target/release/tollgate-local ] || target/release/tollgate-local down

.PHONY: test
test: curl build envoy sdk redis postgres clickhouse schemathesis ## Run every test, those through the real Envoy included
	@scripts/step 'Running all tests'
	@$(CARGO) test --locked --release --workspace
	$(WITH_SERVERS)

# What the service's stores are is no matter to these, so that they run on any.
SERVED ?= bodies coverage endings failures identity images law leased_calls limits openapi otel providers redis reports \
	reservations sdk streaming tls usage

.PHONY: test-servers
test-servers: build envoy sdk redis postgres clickhouse schemathesis ## Run the end-to-end tests SERVED with PostgreSQL, Redis and ClickHouse
	$(WITH_SERVERS)

define WITH_SERVERS
@scripts/step 'Running end-to-end tests with PostgreSQL, Redis and ClickHouse'
@target/release/tollgate-local with-servers $(CARGO) test --locked --release --workspace $(SERVED:%=--test %)
endef

.PHONY: lint
lint: toolchain ## Check formatting and run clippy, for this machine and for wasm
	@scripts/step 'Checking formatting'
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path filter/usage/fuzz/Cargo.toml --check
	@scripts/step 'Running clippy'
	@$(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --locked --release -p tollgate-filter --target wasm32-wasip1 -- -D warnings

.PHONY: fuzz
fuzz: toolchain ## Fuzz what reads untrusted bytes, FUZZ_SECONDS (600) for each target
	@scripts/fuzz $(FUZZ_SECONDS)

.PHONY: bench
bench: build envoy wrk h2load redis ## Measure, in one run: plain Envoy, its own rate limit filter, and ours; the service alone
	@target/release/tollgate-bench

.PHONY: tools
tools: toolchain envoy sdk redis postgres clickhouse schemathesis wrk h2load ## Fetch what is no part of the code into .tools/

.PHONY: clean
clean: down ## Remove all that was built or fetched
	rm -rf target .tools .run

# The parts that the targets above are made of.

.PHONY: toolchain
toolchain:
	@scripts/toolchain

.PHONY: wasm
wasm: toolchain
	@scripts/step 'Building the filter'
	@$(CARGO) build --locked -p tollgate-filter --target wasm32-wasip1 --profile wasm

# What is tested is what is run: one profile for all, and one set of the dependencies' features, which cargo widens for tests: with one of
# them among the targets here, `make test` builds nothing a second time.
.PHONY: build
build: wasm ## Build the filter, the service, the stand-in and the tools around them
	@scripts/step 'Building the service and its surroundings (a few minutes the first time)'
	@$(CARGO) build --locked --release --workspace --bins --test structure

.PHONY: envoy
envoy:
	@scripts/python-tools envoy/requirements.txt

.PHONY: sdk
sdk:
	@scripts/python-tools tests/sdk/requirements.txt

.PHONY: clickhouse
clickhouse:
	@scripts/python-tools tests/clickhouse/requirements.txt

.PHONY: schemathesis
schemathesis:
	@scripts/python-tools tests/openapi/requirements.txt

# README's commands are tested, and use it.
.PHONY: curl
curl:
	@command -v curl >/dev/null || { echo 'curl is missing. Install it: sudo apt-get install curl' >&2; exit 1; }

.PHONY: wrk
wrk:
	@scripts/distribution-tool wrk wrk

.PHONY: h2load
h2load:
	@scripts/distribution-tool nghttp2-client h2load

.PHONY: redis
redis:
	@scripts/distribution-tool 'redis-server redis-tools' redis-server redis-cli redis-benchmark

.PHONY: postgres
postgres:
	@scripts/distribution-tool 'postgresql-15' initdb postgres
