#!/usr/bin/env bash
# Builds the printer of an SDK: the worker that `boxoffice worker test` and the protocol test hold against the contract.
#
#   sdk/build.sh python|typescript|go   builds one, and prints its program, one word a line; exit code 3 if its toolchain is missing
#   sdk/build.sh --all                  builds all; with REQUIRE_SDKS=1 a missing toolchain is a failure
#
# It serves a database in Postgres: nothing is compiled for SQLite. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
sdk="$PWD"

have() { command -v "$1" >/dev/null 2>&1; }
missing() { echo "SKIP  the SDK for $*" >&2; exit 3; }

build_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || missing "Python: Python 3.11 or newer is missing"
    if ! cmp -s python/requirements.lock python/.venv/.installed; then
        python3 -m venv python/.venv >&2 || missing "Python: python3 cannot make an environment (venv)"
        python/.venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
            --requirement python/requirements.lock >&2
        cp python/requirements.lock python/.venv/.installed
    fi
    printf '%s\n' env "PYTHONPATH=$sdk/python" "$sdk/python/.venv/bin/python" "$sdk/python/tests/printer.py"
}

build_typescript() {
    { have node && have npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } ||
        missing "TypeScript: Node 20 or newer with npm is missing"
    if [[ ! typescript/node_modules/.package-lock.json -nt typescript/package-lock.json ]]; then
        npm --prefix typescript ci --ignore-scripts --no-audit --no-fund --silent >&2
    fi
    if [[ ! -f typescript/dist/.built || -n "$(find typescript/src typescript/test typescript/examples typescript/tsconfig.json \
        -newer typescript/dist/.built -print -quit)" ]]; then
        npm --prefix typescript run --silent build >&2
        touch typescript/dist/.built
    fi
    printf '%s\n' node "$sdk/typescript/dist/test/printer.js"
}

build_go() {
    have go || missing "Go: its toolchain is missing"
    go -C go/examples build -tags nosqlite -o "$sdk/go/bin/printer-postgres" ./printer >&2
    printf '%s\n' "$sdk/go/bin/printer-postgres"
}

case "${1:-}" in
    python | typescript | go)
        # Two builds at once would write the same files.
        if have flock; then
            exec 9>.build.lock
            flock 9
        fi
        "build_$1"
        ;;
    --all)
        skipped=0
        for language in python typescript go; do
            code=0
            ./build.sh "$language" >/dev/null || code=$?
            if ((code == 3)); then skipped=1; elif ((code != 0)); then exit "$code"; fi
        done
        if ((skipped)) && [[ -n "${REQUIRE_SDKS:-}" ]]; then
            echo "REQUIRE_SDKS is set, and an SDK was skipped" >&2
            exit 1
        fi
        ;;
    *) echo "usage: sdk/build.sh python|typescript|go|--all" >&2; exit 2 ;;
esac
