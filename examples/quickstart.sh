#!/bin/bash
# Shows vswitch at work on this machine without touching its network. Run as root on Debian 12; everything it makes is
# gone at the end.
#
#   red    vsw-red  [eth0] 198.18.0.11 --+
#   blue   vsw-blue [eth0] 198.18.0.12 --+-- vswitchd -- vsw-host [lan0] 198.18.0.1 ------ [w0] 198.18.0.254 vsw-wire
#   green  a process on a ring .13     --+
#
# red and blue are namespaces as a container has one; green is a program that attaches to shared memory; vsw-host plays
# the host, whose lan0 leads to "the wire". To use a real one, write its name into "netdev" of tenants.json.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
config=$root/examples/tenants.json
log=$root/build/quickstart.log
build=$root/build/release
namespaces=(vsw-host vsw-wire vsw-red vsw-blue)
made=()
processes=()
begun=false

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

clean_up() {
  local status=$? pid name i
  trap - EXIT INT TERM
  # Youngest first: the clients before the daemon, so that each ends by its own will.
  for ((i = ${#processes[@]} - 1; i >= 0; i--)); do
    pid=${processes[$i]}
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  for name in "${made[@]}"; do ip netns del "$name" || true; done
  if [ $status -eq 1 ] && $begun; then
    printf '\nthe end of %s:\n' "$log" >&2
    tail -20 "$log" >&2
  fi
  exit $status
}
trap clean_up EXIT
trap 'exit 130' INT TERM

[ "$(id -u)" -eq 0 ] || die "it makes network namespaces: run it as root"
for name in "${namespaces[@]}"; do
  [ ! -e "/run/netns/$name" ] || die "the namespace $name exists already; remove it first (ip netns del $name)"
done
[ ! -e /run/vswitch/control.sock ] || die "/run/vswitch/control.sock exists: a vswitchd runs here already, or was killed; stop it, or remove the file"

say "Building (log: build/quickstart.log)"
mkdir -p "$root/build"
begun=true
"$root/cmake/install-packages.sh" build
{
  cd "$root"
  cmake --preset release
  cmake --build --preset release --target vswitchd vswitchctl ping_responder
} >"$log" 2>&1
daemon=$build/vswitch/daemon/vswitchd
ctl=$build/vswitch/ctl/vswitchctl

say "Making a host with an uplink, a peer on the wire, and namespaces for two tenants"
for name in "${namespaces[@]}"; do
  ip netns add "$name"
  made+=("$name")
  ip -n "$name" link set lo up
done
ip -n vsw-host link add lan0 type veth peer name w0 netns vsw-wire
ip -n vsw-host addr add 198.18.0.1/24 dev lan0
ip -n vsw-wire addr add 198.18.0.254/24 dev w0
ip -n vsw-host link set lan0 up
ip -n vsw-wire link set w0 up

say "vswitchd --config examples/tenants.json"
nsenter --net=/run/netns/vsw-host "$daemon" --config "$config" >"$log" 2>&1 &
vswitchd=$!
processes+=("$vswitchd")
for _ in $(seq 100); do
  if "$ctl" version >/dev/null 2>&1; then break; fi
  kill -0 "$vswitchd" 2>/dev/null || die "vswitchd ended"
  sleep 0.1
done
"$ctl" version
"$build/examples/ping_responder" /run/vswitch/green-app.sock >>"$log" 2>&1 &
processes+=("$!")

try_ping() { # FROM ADDRESS WHAT
  local output
  printf '  %-44s' "$3"
  if ! output=$(nsenter --net="/run/netns/$1" ping -q -n -c 3 -i 0.2 -W 2 "$2"); then
    echo "no answer"
    die "$2 does not answer"
  fi
  sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\2 of \1 echoes/p; s/^rtt[^=]*= [^/]*\/\([^/]*\).*/average \1 ms/p' \
    <<<"$output" | paste -sd' '
}
say "Who reaches whom"
try_ping vsw-red 198.18.0.12 "tenant red -> tenant blue"
try_ping vsw-red fd00::12 "tenant red -> tenant blue, IPv6"
try_ping vsw-red 198.18.0.254 "tenant red -> the wire"
try_ping vsw-wire 198.18.0.12 "the wire -> tenant blue"
try_ping vsw-wire 198.18.0.13 "the wire -> green, a process on a ring"
try_ping vsw-blue 198.18.0.13 "tenant blue -> green, a process on a ring"
try_ping vsw-blue fd00::13 "tenant blue -> green, IPv6"
try_ping vsw-host 198.18.0.254 "the host -> the wire, through the same lan0"

say "vswitchctl show"
"$ctl" show
say "vswitchctl stats"
"$ctl" stats
say "vswitchctl trace red/web --src 02:00:00:00:00:11 --dst 02:00:00:00:00:12"
"$ctl" trace red/web --src 02:00:00:00:00:11 --dst 02:00:00:00:00:12
say "All of it worked. Cleaning up."
