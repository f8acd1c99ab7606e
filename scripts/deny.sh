#!/usr/bin/env bash
# Checks the dependencies by deny.toml: licences, sources, versions, and known advisories. The advisories are fetched
# from GitHub; where that cannot be reached, a line says so and the other checks still count.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/deps.sh
main lint

# The licences stand in the sources of all dependencies, also of those that this machine does not build.
cargo fetch --locked --quiet
"$cargo_deny" deny --offline check bans licenses sources

# What was just built has made one already.
[[ -n "${scratch:-}" ]] || { scratch="$(mktemp -d)"; trap 'rm -rf "$scratch"' EXIT; }
# Exits with 0 even if it has fetched nothing, so its words are what counts.
if GIT_TERMINAL_PROMPT=0 timeout 120 "$cargo_deny" deny fetch db >"$scratch/fetch" 2>&1 &&
    ! grep -qE "^fatal:|\[ERROR\]|unable to" "$scratch/fetch"; then
    "$cargo_deny" deny --offline check advisories
else
    echo "deny: advisories were NOT checked, their database could not be fetched: $(grep -E "fatal|ERROR" "$scratch/fetch" | head -n 1)" >&2
fi
