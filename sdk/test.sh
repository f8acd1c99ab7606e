#!/usr/bin/env bash
# Tests the worker SDKs: each one's own tests, the protocol test on Postgres and on SQLite (sdk/conformance/protocol.py),
# and bookings through a whole Box Office (sdk/conformance/booking.py).
#
#   sdk/test.sh [--all] [python] [typescript] [go]
#
# A language whose toolchain is missing is skipped, with a line that says so; with --all a skip is a failure.
# BOXOFFICE names the program to test against, unless it is in target/.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
sdk="$PWD"

all=0 wanted=()
for argument in "$@"; do
    case "$argument" in
        --all) all=1 ;;
        python | typescript | go) wanted+=("$argument") ;;
        *) echo "usage: sdk/test.sh [--all] [python] [typescript] [go]" >&2; exit 2 ;;
    esac
done
[[ ${#wanted[@]} -gt 0 ]] || wanted=(python typescript go)

passed=0 failed=0 skipped=0
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

skip() { echo "SKIP  $*"; skipped=$((skipped + 1)); }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command and shows its output only if it fails.
check() {
    local name="$1" log
    shift
    log="$(mktemp "$scratch/XXXXXX")"
    if "$@" >"$log" 2>&1; then
        echo "ok    $name"
        passed=$((passed + 1))
    else
        cat "$log"
        echo "FAIL  $name"
        failed=$((failed + 1))
        return 1
    fi
}

# ---- what all languages need: servers, and Python for the program that plays the orchestrator

python="$sdk/python/.venv/bin/python"
conformance=""

prepare() {
    check "servers: Postgres and nats-server" ../scripts/deps.sh || return
    NATS_SERVER="$(bash -c 'source ../scripts/deps.sh; if [[ -x "$nats_server" ]]; then echo "$nats_server"; else command -v nats-server; fi')"
    export NATS_SERVER
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        skip "the protocol tests: Python 3.11 or newer is missing"
        return
    fi
    [[ -x "$python" ]] || check "python: environment" python3 -m venv python/.venv || return
    check "python: packages" "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
        --require-hashes --requirement python/requirements.lock || return
    conformance=1
    for place in "${BOXOFFICE:-}" ../target/debug/boxoffice ../target/release/boxoffice; do
        if [[ -n "$place" && -x "$place" ]]; then
            BOXOFFICE="$(realpath "$place")"
            export BOXOFFICE
            return
        fi
    done
    unset BOXOFFICE
    skip "bookings through Box Office: there is no program; run cargo build, or set BOXOFFICE"
}

# The protocol test on both databases at once, and bookings: the language, flags of the protocol test, its program, then,
# after --, the program of the bookings.
conform() {
    local language="$1" flags=() printer=() database
    shift
    while [[ "$1" == --* ]]; do flags+=("$1"); shift; done
    [[ -n "$conformance" ]] || return
    while [[ "$1" != -- ]]; do printer+=("$1"); shift; done
    shift
    local -A running=()
    for database in postgres sqlite; do
        "$python" conformance/protocol.py "${flags[@]}" --database "$database" -- "${printer[@]}" >"$scratch/$database" 2>&1 &
        running[$database]=$!
    done
    for database in postgres sqlite; do
        if wait "${running[$database]}"; then
            check "$language: protocol on $database, $(grep ' passed, ' "$scratch/$database" | tail -n 1)" true
        else
            check "$language: protocol on $database" false
            cat "$scratch/$database"
        fi
    done
    if [[ -n "${BOXOFFICE:-}" ]]; then check "$language: bookings" "$python" conformance/booking.py -- "$@"; fi
}

# ---- languages

test_python() {
    [[ -n "$conformance" ]] || { skip "python: Python 3.11 or newer is missing"; return; }
    export PYTHONPATH="$sdk/python"
    check "python: unit tests" "$python" -m unittest discover --start-directory python/tests --pattern 'test_*.py'
    conform python "$python" "$sdk/python/tests/printer.py" -- "$python" "$sdk/python/examples/badges.py"
    unset PYTHONPATH
}

test_typescript() {
    if ! { have node && have npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; }; then
        skip "typescript: Node 20 or newer with npm is missing"
        return
    fi
    # build.sh compiles nothing for SQLite.
    if [[ ! typescript/node_modules/.package-lock.json -nt typescript/package-lock.json ||
        ! -f typescript/node_modules/better-sqlite3/build/Release/better_sqlite3.node ]]; then
        # Headers to compile with, where the system has them.
        [[ ! -d /usr/include/node ]] || export npm_config_nodedir=/usr
        check "typescript: packages" npm --prefix typescript ci --no-audit --no-fund || return
    fi
    check "typescript: build" npm --prefix typescript run build || return
    check "typescript: unit tests" npm --prefix typescript test
    conform typescript node "$sdk/typescript/dist/test/printer.js" -- node "$sdk/typescript/dist/examples/badges.js"
}

test_go() {
    have go || { skip "go: its toolchain is missing"; return; }
    check "go: format" test -z "$(gofmt -l go)"
    check "go: unit tests" go -C go test ./... || return
    check "go: vet" bash -c 'go -C go vet ./... && go -C go/examples vet ./...'
    check "go: build" go -C go/examples build -o "$sdk/go/bin/" ./badges ./printer || return
    conform go --panics "$sdk/go/bin/printer" -- "$sdk/go/bin/badges"
}

prepare
for language in "${wanted[@]}"; do
    if declare -F "test_$language" >/dev/null; then "test_$language"; fi
done
echo "$passed passed, $failed failed, $skipped skipped"
if ((failed > 0 || (all && skipped > 0))); then exit 1; fi
