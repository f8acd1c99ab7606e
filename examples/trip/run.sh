#!/usr/bin/env bash
# Builds and runs a worker of this example, on the servers of a running `make up`.
#
#   examples/trip/run.sh hotel|flight|car
#   examples/trip/run.sh --build hotel|flight|car    builds it only; exit code 3 if its toolchain is missing
#   examples/trip/run.sh --built hotel|flight|car    runs it as it was built
#
# The hotel keeps its bookings in the file examples/trip/.build/hotel.db. Flight and car keep theirs in Postgres, each in a schema of its
# own; in production each service has a database of its own. NATS_URL, HOTEL_DB and DATABASE_URL name other servers and files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
trip="$PWD"
sdk="$(cd ../../sdk && pwd)"
data="${BOXOFFICE_DATA_DIR:-$(cd ../.. && pwd)/.boxoffice}"
python="$sdk/python/.venv/bin/python"

# The SDK's own build finds the toolchain and makes what the worker needs.
sdk() { "$sdk/build.sh" "$1" >/dev/null || exit "$?"; }

build() {
    sdk python # also makes the schemas of the others
    case "$1" in
        hotel) ;;
        flight)
            sdk typescript
            # The SDK is copied into the packages of this worker.
            if [[ ! flight/node_modules/.package-lock.json -nt "$sdk/typescript/dist/.built" ]]; then
                npm --prefix flight ci --ignore-scripts --no-audit --no-fund --silent >&2
            fi
            if [[ ! flight/dist/flight.js -nt flight/flight.ts ]]; then npm --prefix flight run --silent build >&2; fi
            ;;
        car)
            sdk go
            go -C car build -o "$trip/.build/car" . >&2
            ;;
        *) echo "usage: examples/trip/run.sh [--build|--built] hotel|flight|car" >&2; exit 2 ;;
    esac
}

# An address from the file that `make up` writes while it runs.
address() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$data/running.json" "$1"; }

make_schema() {
    "$python" - "$1" "$2" <<'PROGRAM'
import asyncio, asyncpg, sys

async def main(url, schema):
    conn = await asyncpg.connect(url)
    await conn.execute(f"create schema if not exists {schema}")
    await conn.close()

asyncio.run(main(*sys.argv[1:]))
PROGRAM
}

what=""
if [[ "${1:-}" == --build || "${1:-}" == --built ]]; then what="$1" && shift; fi
worker="${1:-}"
if [[ "$what" != --built ]]; then
    mkdir -p .build
    (
        # Two builds at once would write the same files.
        if command -v flock >/dev/null 2>&1; then flock 8; fi
        build "$worker"
    ) 8>.build/lock
fi
if [[ "$what" == --build ]]; then exit 0; fi

export NATS_URL="${NATS_URL:-$(address nats_url)}"
if [[ "$worker" == hotel ]]; then
    export HOTEL_DB="${HOTEL_DB:-$trip/.build/hotel.db}" PYTHONPATH="$sdk/python"
    exec "$python" hotel/hotel.py
fi
DATABASE_URL="${DATABASE_URL:-$(address database_url)}"
make_schema "$DATABASE_URL" "$worker"
[[ "$DATABASE_URL" == *\?* ]] && mark="&" || mark="?"
export DATABASE_URL="$DATABASE_URL${mark}options=-csearch_path%3D$worker"
if [[ "$worker" == flight ]]; then exec node flight/dist/flight.js; fi
exec .build/car
