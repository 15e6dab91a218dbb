#!/usr/bin/env bash
# go test with one second chance: a package that fails is run once more, alone,
# so that a neighbour that takes both cores does not refuse a change. What
# passes only then is named FLAKY at the end, and is a bug to be fixed.
set -uo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
go=${GO:-go}
"$go" test "$@" 2>&1 | tee "$out" && exit 0

mapfile -t failed < <(sed -nE 's/^FAIL[[:space:]]+([^[:space:]]+)[[:space:]]+\(?[0-9.]+s.*/\1/p' "$out" | sort -u)
# No second chance for a build that failed, a data race, a panic or more than three packages.
if [ ${#failed[@]} -eq 0 ] || [ ${#failed[@]} -gt 3 ] || grep -q -e '\[build failed\]' -e '\[setup failed\]' -e '^WARNING: DATA RACE' -e '^panic: ' "$out"; then exit 1; fi

flags=() # without the packages that were asked for
for a in "$@"; do case $a in ./*|github.com/*) ;; *) flags+=("$a") ;; esac; done
tests=$(sed -nE 's/^[[:space:]]*--- FAIL: ([^ ]+).*/\1/p' "$out" | tr '\n' ' ')
echo "once more, alone: ${failed[*]} (failed: $tests)"
"$go" test -count=1 -p 1 "${flags[@]}" "${failed[@]}" || exit 1
echo "FLAKY: $tests"
