# `make` shows what there is. Each target does all its own set-up, on a fresh machine too.

# Queries are checked against the committed descriptions in .sqlx, whatever database is at hand.
export SQLX_OFFLINE := true

# Tests start servers of their own and set what they need; what the shell has set must not reach them.
ALONE := env $(foreach name,DATABASE_URL NATS_URL $(filter BOXOFFICE_%,$(.VARIABLES)),-u $(name))

.DEFAULT_GOAL := help
.PHONY: help deps deps-of-tests deps-of-slow-tests cargo demo up test test-slow test-sdks lint prepare bench chaos gate gate-built

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: deps ## Run a whole on-sale: buyers, holds, payments, and the verdict of the audit
	cargo run -p boxoffice-demo

up: deps ## Run everything in one process, until Ctrl-C
	cargo run -- up

test: deps-of-tests lint ## Run every check: format, lints, tests against real servers, documentation
	sdk/build.sh --all
	$(ALONE) cargo test --workspace --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --features saga-worker/sqlite --quiet

# TESTS names some of them: make test-slow TESTS=throttle::
test-slow: deps-of-slow-tests ## Run the long tests: faults that last, the shop in a browser, generated requests, loads (a quarter of an hour)
	$(ALONE) cargo test --quiet --test slow -- $(TESTS)

test-sdks: deps ## Test the worker SDKs (sdk/): their own tests, the protocol, and bookings through a whole service
	cargo build
	$(ALONE) sdk/test.sh

bench: deps ## Measure every scenario with an optimised build, a quarter of an hour; results in bench/results
	cargo build --release -p boxoffice-bench
	$(ALONE) scripts/bench.sh

chaos: deps ## Break a running service 200 times while buyers buy, a quarter of an hour; result in bench/results
	cargo build --release -p boxoffice -p boxoffice-chaos
	$(ALONE) target/release/boxoffice-chaos --save bench/results/chaos.json

gate: deps ## Count what a booking takes, and fail if it is more than agreed (bench/gate.json)
	$(ALONE) scripts/gate.sh

gate-built: ## The same with the program that `make test` has built
	$(ALONE) scripts/gate.sh --built

lint: cargo ## Check format, lints, and the licences and advisories of dependencies
	cargo fmt --all --check
	scripts/deny.sh
	cargo clippy --workspace --all-targets --test slow --quiet -- -D warnings

deps-of-slow-tests: cargo
	@scripts/deps.sh slow

deps-of-tests: cargo
	@scripts/deps.sh tests

deps: cargo ## Install what is missing: Postgres and nats-server
	@scripts/deps.sh

prepare: deps ## Describe the queries anew (.sqlx), after changing one or a migration
	scripts/prepare.sh

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing; install Rust: https://rustup.rs" >&2; exit 1; }
