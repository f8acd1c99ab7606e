#!/usr/bin/env bash
# Counts what a booking takes (statements, commits, rows, bytes of Postgres's log, messages of JetStream, allocations) and compares it with
# bench/gate.json; names the statements that have grown. Nothing is timed, so it can run on any machine and without
# optimisation. After a change that is meant to cost more: scripts/gate.sh --agree
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == --agree ]]; then
    cargo run --quiet -p boxoffice-bench -- gate --save bench/gate.json
else
    cargo run --quiet -p boxoffice-bench -- gate --against bench/gate.json
fi
