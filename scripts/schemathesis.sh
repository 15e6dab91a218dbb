#!/usr/bin/env bash
# Sends the control plane of a running demo what its OpenAPI description allows
# and what it forbids: no 5xx, no status or body that is not described.
#   scripts/schemathesis.sh DIR     the folder of a demo to throw away: it is written to
set -euo pipefail
dir=${1:?"usage: scripts/schemathesis.sh DIR (of a running demo that may be written to)"}
version=4.32.5
tools=${TOOLS:-.tools}/schemathesis-$version
if [ ! -x "$tools/bin/schemathesis" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install -q "schemathesis==$version"
fi
field() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$dir/demo.json" "$1"; }
url=$(field control)
config=$(mktemp --suffix=.toml)
trap 'rm -f "$config"' EXIT
for role in operator assessor auditor developer; do
  # The token goes by a file: everybody may read a command line. What the
  # register knows better than any schema (check digits, states) is refused
  # with 422 or 409, so that well-formed data need not be accepted.
  printf 'headers = { Authorization = "Bearer %s" }\n' "$(field "${role}_token")" >"$config"
  echo "schemathesis: as $role"
  "$tools/bin/schemathesis" --config-file "$config" run "$url/openapi.json" --no-color \
    --exclude-operation-id follow-events --phases examples,coverage,fuzzing -n "${EXAMPLES:-20}" --exclude-checks positive_data_acceptance
done
