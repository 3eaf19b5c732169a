#!/bin/bash
# Builds and tests everything, from a fresh clone on plain Debian 12, as root. Ends with a summary; the exit status is 0
# only if all of it passed.
#
# usage: tests/run.sh [PART...]
#   docs    layers of includes, house style, man pages
#   unit    build (preset dev), unit and contract tests
#   abi     the client's headers and symbols
#   softnic programs that nobody here wrote, on the software NIC
#   netns   vswitchd between network namespaces (build dev)
#   verbs   most of these again, on a software RDMA NIC
#   kernel  the same frames through kernel macvlan and vswitchd
#   asan    the unit tests and a part of the netns tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan    the unit tests and a part of the netns tests under ThreadSanitizer
#   fuzz    each fuzzer for 15 seconds
#   bench   every benchmark for a moment: that they run, not what they show (wants a quiet machine: only when asked for)
#   tidy    clang-tidy (slow: only when asked for)
# Without PART: all but bench and tidy. VSWITCH_JOBS sets how many compilers run at once (the number of CPUs).
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
jobs=${VSWITCH_JOBS:-$(nproc)}
logs=$root/build/logs
names=()
results=()
failed=0

usage() { sed -n '2,19s/^# \{0,1\}//p' "$0"; }

# step NAME COMMAND...: runs it, keeps its output in a file, shows the end of it when it fails.
step() {
  local name=$1 started=$SECONDS result=passed
  shift
  printf '== %s\n' "$name"
  mkdir -p "$logs"
  if ! "$@" >"$logs/${name// /-}.log" 2>&1; then
    result=FAILED
    failed=1
    tail -60 "$logs/${name// /-}.log"
    printf '== %s FAILED; all of its output: build/logs/%s.log\n' "$name" "${name// /-}"
  fi
  names+=("$name")
  results+=("$result $((SECONDS - started)) s")
  [ $result = passed ]
}

build() {
  local preset=$1 ccache=()
  if command -v ccache >/dev/null; then
    ccache=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  cmake --preset "$preset" "${ccache[@]}" && cmake --build --preset "$preset" -j "$jobs"
}

# Built once, whoever needs it; a build that failed fails what depends on it.
declare -A built
need() {
  if [ -z "${built[$1]:-}" ]; then
    step "build $1" build "$1" && built[$1]=yes || built[$1]=no
  fi
  [ "${built[$1]}" = yes ]
}

# unit_tests PRESET TIMEOUT [OPTION...] of ctest
unit_tests() {
  local preset=$1 timeout=$2
  shift 2
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --timeout "$timeout" "$@"
}

# netns_tests PRESET SLOWNESS [MODULE...]: all modules when none is given.
netns_tests() {
  local preset=$1 slow=$2
  shift 2
  local modules=("$@")
  [ $# -gt 0 ] || mapfile -t modules < <(cd tests/netns && ls test_*.py | sed 's/\.py$//')
  # Python cannot load a sanitized libvswitch: clients use the plain one, the daemon under test is the sanitized one.
  (cd tests/netns && VSWITCH_BUILD="$root/build/$preset" VSWITCH_TEST_SLOW=$slow \
    VSWITCH_CLIENT_LIBRARY="$root/build/dev/ports/client/libvswitch.so" python3 -B -m unittest -v "${modules[@]}")
}

softnic_tests() {
  (cd tests/softnic && VSWITCH_BUILD="$root/build/dev" python3 -B -W ignore::ResourceWarning -m unittest -v)
}

# A report of a sanitizer ends the daemon with a status that the tests refuse; what it says is in the daemon's log.
# (The library of the software NIC is preloaded before the sanitizer's own.)
export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:exitcode=86:verify_asan_link_order=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=exitcode=86:halt_on_error=1:suppressions=$root/tests/tsan.supp
export PYTHONDONTWRITEBYTECODE=1

part_docs() {
  step "layers" python3 tests/docs/check_layers.py
  if need dev; then
    step "style" python3 tests/docs/check_style.py build/dev
  fi
}
part_unit() { need dev && step "unit tests" unit_tests dev 300; }
part_abi() {
  need dev || return
  step "abi" python3 tests/abi/check_abi.py build/dev
  step "install" python3 tests/abi/check_install.py build/dev
}
part_softnic() { need dev && step "softnic" softnic_tests; }
part_netns() { need dev && step "netns tests" netns_tests dev 1; }
# The scenarios again, on the uplink of an RDMA NIC; the throughput that some ask for is no matter of a software NIC.
part_verbs() {
  need dev || return
  VSWITCH_TEST_UPLINK=verbs step "netns tests verbs" netns_tests dev 1 test_ping test_vlan test_modes test_mtu test_reload \
    test_stop test_stats test_errors test_offloads test_offload_tcp test_gro test_ring test_hostile test_workers test_idle
  VSWITCH_TEST_UPLINK=verbs VSWITCH_TEST_NIC=neutral step "netns tests verbs, not mlx5" netns_tests dev 1 test_ping \
    test_vlan test_modes test_offload_tcp test_uplink_verbs test_uplink_verbs_tcp
}
part_kernel() { need dev && step "kernel differential" python3 tests/kernel/macvlan_differential.py; }
part_asan() {
  need dev && need asan || return
  step "unit tests asan" unit_tests asan 600
  step "netns tests asan" netns_tests asan 4 test_ping test_stop test_reload test_ring test_hostile test_offloads test_gro \
    test_uplink_verbs
}
part_tsan() {
  need dev && need tsan || return
  # One thread alone has no races: those tests need not be slow as well.
  step "unit tests tsan" unit_tests tsan 900 -E '^(checksum|offload_check|gso|adapt|coalesce|decide|config|softnic_packet|softnic_steering|gso_differential)$'
  step "netns tests tsan" netns_tests tsan 6 test_ping test_reload test_ring test_hostile test_offloads test_gro
}
part_fuzz() { need fuzz && step "fuzz" tests/fuzz/run.sh --seconds 15; }
part_bench() { need dev && step "bench" env VSWITCH_BUILD="$root/build/dev" tests/bench/run.sh --seconds 0.5 --runs 1; }
part_tidy() { need dev && step "clang-tidy" run-clang-tidy-14 -quiet -p build/dev "$root/(vswitch|ports|netlink|config|examples)/"; }

parts=("$@")
[ $# -gt 0 ] || parts=(docs unit abi softnic netns verbs kernel asan tsan fuzz)
for part in "${parts[@]}"; do
  if ! declare -F "part_$part" >/dev/null; then
    usage
    exit 2
  fi
done
if [ "$(id -u)" -ne 0 ]; then
  echo "tests/run.sh makes network namespaces: run it as root" >&2
  exit 1
fi

step "packages" cmake/install-packages.sh test || exit 1
for part in "${parts[@]}"; do
  "part_$part"
done

printf '\n%-24s %s\n' part result
for i in "${!names[@]}"; do printf '%-24s %s\n' "${names[$i]}" "${results[$i]}"; done
printf 'in all %d min %d s: %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$([ $failed = 0 ] && echo passed || echo FAILED)"
exit $failed
