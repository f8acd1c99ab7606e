#!/usr/bin/env bash
# Counts what a booking takes (statements, commits, rows, bytes of Postgres's log, messages of JetStream, allocations) and compares it with
# bench/gate.json; names the statements that have grown. Nothing is timed, so it can run on any machine and without
# optimisation. After a change that is meant to cost more: scripts/gate.sh --agree
# With --built it runs the program that `make test` has built, as CI does.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    --agree) exec cargo run --quiet -p boxoffice-bench -- gate --save bench/gate.json ;;
    --built) exec "${CARGO_TARGET_DIR:-target}/debug/boxoffice-bench" gate --against bench/gate.json ;;
    *) exec cargo run --quiet -p boxoffice-bench -- gate --against bench/gate.json ;;
esac
