#include "config/stable_mac.h"

#include <systemd/sd-id128.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

/// Separates our use of the machine's identity from everybody else's; random, made once.
constexpr sd_id128_t kApplication{
    {0xc3, 0x81, 0x5f, 0x0e, 0x9a, 0x27, 0x4d, 0x64, 0xb8, 0x1c, 0x70, 0xe2, 0x53, 0x96, 0xaf, 0x0d}};

/// HMAC-SHA256 keyed with the machine's identity, cut to 128 bits.
sd_id128_t keyed(sd_id128_t block) {
  sd_id128_t result;
  const int status = sd_id128_get_machine_app_specific(block, &result);
  if (status < 0) {
    throw Error(-status, "derive", "a MAC address from /etc/machine-id",
                "set \"mac\" or create the file with systemd-machine-id-setup(1)");
  }
  return result;
}

}  // namespace

// The library hashes 16 bytes at a time, a name can be longer: CBC-MAC over that keyed hash. The length comes first, so
// that no name's chain is the beginning of another's.
Mac stable_mac(std::string_view port_name) {
  sd_id128_t state = kApplication;
  std::size_t length = port_name.size();
  for (std::size_t i = 0; i < sizeof(length); ++i, length >>= 8) state.bytes[i] ^= static_cast<std::uint8_t>(length);
  state = keyed(state);
  while (!port_name.empty()) {
    const std::string_view block = port_name.substr(0, sizeof(state.bytes));
    for (std::size_t i = 0; i < block.size(); ++i) state.bytes[i] ^= static_cast<std::uint8_t>(block[i]);
    state = keyed(state);
    port_name.remove_prefix(block.size());
  }
  Mac mac;
  std::copy_n(std::begin(state.bytes), mac.bytes.size(), mac.bytes.begin());
  mac.bytes[0] = static_cast<std::uint8_t>((mac.bytes[0] & 0xfcU) | 0x02U);
  return mac;
}

}  // namespace vswitch
