#!/usr/bin/env bash
# Writes the types of the client anew: src/schema.d.ts from the API description, src/client.d.ts from the client's comments.
# Run it after a change to a route or a body that buyers use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The operations that a shop calls.
TAGS=concerts,points,queue,reservations,users

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
program="${BOXOFFICE:-}"
if [[ -z "$program" ]]; then
    SQLX_OFFLINE=true cargo build --quiet --manifest-path ../../Cargo.toml --bin boxoffice
    program=../../target/debug/boxoffice
fi
[[ node_modules/.package-lock.json -nt package-lock.json ]] || npm ci --silent --ignore-scripts
"$program" openapi --tags "$TAGS" --json >"$scratch/openapi.json"
# Of all but the texts: another wording needs no other types.
hash="$(node -e '
    const isText = (name, value) => ["description", "summary"].includes(name) && typeof value === "string";
    const bare = (name, value) => (isText(name, value) ? undefined : value);
    process.stdout.write(JSON.stringify(JSON.parse(require("fs").readFileSync(0, "utf8")), bare));
' <"$scratch/openapi.json" | sha256sum | cut -d ' ' -f 1)"
node_modules/.bin/openapi-typescript "$scratch/openapi.json" --alphabetize --output "$scratch/schema.d.ts" >&2
{
    echo "// Written by generate.sh from the API description that has, without its texts, the SHA-256 $hash."
    cat "$scratch/schema.d.ts"
} >src/schema.d.ts
node_modules/.bin/tsc --project tsconfig.json
