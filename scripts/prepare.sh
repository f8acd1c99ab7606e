#!/usr/bin/env bash
# Regenerates .sqlx, which lets `cargo build` check every query without a database: starts a Postgres for the moment,
# applies the migrations and compiles against it. Run it after changing a query or a migration.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch="$(mktemp -d)"
chmod 711 "$scratch"
data="$scratch/data"

# Postgres refuses to run as root.
run() {
    if [[ "$(id -u)" == 0 ]]; then
        su -s /bin/sh "$postgres_user" -c 'cd / && exec "$0" "$@"' -- "$@"
    else
        "$@"
    fi
}

stop() {
    run "$bin/pg_ctl" -D "$data" -m immediate -s stop >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap stop EXIT

bin="$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
[[ -x "$bin/initdb" ]] || bin="$(dirname "$(realpath "$(command -v postgres)")")"
postgres_user=nobody
if id postgres >/dev/null 2>&1; then postgres_user=postgres; fi

mkdir "$data" "$scratch/new"
if [[ "$(id -u)" == 0 ]]; then chown "$postgres_user" "$data"; fi
run "$bin/initdb" -D "$data" -U boxoffice --auth=trust --no-locale --encoding=UTF8 --no-sync >/dev/null
# Any free port; the socket lies in a directory that only we can enter.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
run "$bin/pg_ctl" -D "$data" -s -w -l "$data/log" -o "-h 127.0.0.1 -p $port -k '' -c fsync=off" start

export DATABASE_URL="postgres://boxoffice@127.0.0.1:$port/postgres"
# Both folders share one row of numbers.
migrations="$(printf '%s\n' crates/saga-engine/migrations/*.sql migrations/*.sql | awk -F/ '{ print $NF, $0 }' | sort | cut -d ' ' -f 2)"
for migration in $migrations; do
    whole=(--single-transaction)
    if [[ "$(head -n 1 "$migration")" == "-- no-transaction"* ]]; then whole=(); fi
    "$bin/psql" -q -X -v ON_ERROR_STOP=1 "${whole[@]}" -d "$DATABASE_URL" -f "$migration"
done

# Into a new folder, so that a query that does not compile leaves the old data as it was.
find src crates tools \( -name lib.rs -o -name main.rs \) -exec touch {} +
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$scratch/new" cargo check --workspace --all-targets
mkdir -p .sqlx
rm -f .sqlx/query-*.json
mv "$scratch"/new/query-*.json .sqlx/
echo "prepare: $(ls .sqlx | wc -l) queries described in .sqlx"
