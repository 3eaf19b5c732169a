#!/bin/bash
# Runs every fuzzer for a while, from the corpus kept here and what earlier runs found.
#
# usage: run.sh [--seconds S] [--keep] [NAME...]
#   --seconds S  for each fuzzer (20)
#   --keep       merge what reached new code into tests/fuzz/corpus/
#   NAME         config, control, frame, coalesce, attach, ring; without: all that are built
# VSWITCH_FUZZ_BUILD names the build directory (build/fuzz). A crash leaves its input there, in fuzz-findings/.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${VSWITCH_FUZZ_BUILD:-$here/../../build/fuzz}
seconds=20
keep=false
names=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --keep) keep=true ;;
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) names+=("$1") ;;
  esac
  shift
done

if [ ${#names[@]} -eq 0 ]; then
  for source in "$here"/*_fuzz.cpp; do
    name=$(basename "$source" _fuzz.cpp)
    names+=("$name")
  done
fi

symbolizer=$(command -v llvm-symbolizer-14 || command -v llvm-symbolizer || true)
export ASAN_SYMBOLIZER_PATH=$symbolizer
mkdir -p "$build/fuzz-findings"
status=0

# One fuzzer at a time on each of two CPUs would disturb the other tests less than it gains: they run one by one.
for name in "${names[@]}"; do
  program=$build/tests/fuzz/${name}_fuzz
  seeds=$here/corpus/$name
  found=$build/fuzz-corpus/$name
  mkdir -p "$found"
  [ -d "$seeds" ] || { echo "$name: no corpus in $seeds" >&2; status=1; continue; }
  log=$build/fuzz-findings/$name.log
  if "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="$build/fuzz-findings/$name-" "$found" "$seeds" >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    # A fuzzer that does not get past its seeds tests nothing.
    if [ "${runs:-0}" -lt 100 ]; then
      echo "$name: only ${runs:-0} runs in $seconds s (see $log)" >&2
      status=1
    else
      echo "$name: $runs runs in $seconds s, no finding; coverage $(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -c6-)"
    fi
  else
    echo "$name: FAILED, the input is in $build/fuzz-findings:" >&2
    tail -40 "$log" >&2
    status=1
  fi
  if $keep; then
    "$program" -merge=1 "$seeds" "$found" >>"$log" 2>&1
  fi
done
exit $status
