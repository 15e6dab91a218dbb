#!/usr/bin/env bash
# Runs every fuzz target of the module for a while, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
found=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
  dir=./$(dirname "$file")
  found=$((found + 1))
  go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" >/tmp/fuzz.$$ 2>&1 ||
    { cat /tmp/fuzz.$$ >&2; rm -f /tmp/fuzz.$$; echo "fuzz: $dir $target failed" >&2; exit 1; }
  printf 'fuzz: %-32s %s\n' "$target" "$(grep -E '^fuzz: elapsed' /tmp/fuzz.$$ | tail -n 1 | sed 's/^fuzz: //')"
done < <(git grep -hE --no-color '^func Fuzz' -- '*_test.go' >/dev/null && git grep -E '^func Fuzz' -- '*_test.go')
rm -f /tmp/fuzz.$$
[ "$found" -gt 0 ] || { echo "fuzz: no target found" >&2; exit 1; }
echo "fuzz: $found targets"
