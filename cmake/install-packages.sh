#!/bin/sh
# Installs the Debian 12 packages that building vswitch needs ("build") and those that testing it needs too ("test").
# Nothing is fetched when all are there already.
set -eu

build="g++ cmake ninja-build pkg-config git python3 mandoc
  nlohmann-json3-dev libvalijson-dev libspdlog-dev libnl-3-dev libnl-route-3-dev liburing-dev libsystemd-dev
  libboost-program-options-dev libgtest-dev libibverbs-dev
  iproute2 iputils-ping util-linux procps"
test="clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev llvm-14 binutils iperf3 ethtool valgrind
  ibverbs-providers ibverbs-utils perftest python3-pyverbs"

case "${1:-}" in
  build) wanted=$build ;;
  test) wanted="$build $test" ;;
  *) echo "usage: $0 build|test" >&2; exit 2 ;;
esac

missing=
for package in $wanted; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "these Debian packages are missing and only root can install them:$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
apt-get update -q >/dev/null
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing >/dev/null
