#pragma once
#include <vector>

#include "tests/ports/harness.h"

namespace vswitch::test {

/// Every kind of port there is.
inline std::vector<Kind> kinds() {
  return {{"loop", [] { return make_loop_harness(); }},
          {"af_packet", [] { return make_af_packet_harness(); }},
          {"verbs", [] { return make_verbs_harness(); }},
          {"ring", [] { return make_ring_harness(); }},
          {"tap", [] { return make_tap_harness(); }}};
}

/// A kind of port as one set of offloads makes it behave.
struct OffloadKind {
  Kind kind;
  OffloadCaps takes;                       ///< unfinished frames that its far end is ready for
  OffloadCaps gives = OffloadCaps::all();  ///< unfinished frames that the far end's own system hands to the switch
  bool vouches = false;                    ///< its DATA_VALID is a kernel's word, not a tenant's
  bool is_uplink = false;
  bool behind_nic = false;  ///< between port and far end is a NIC: it finishes frames, and it takes its time
};
inline void PrintTo(const OffloadKind& kind, std::ostream* out) { *out << kind.kind.name; }

/// Every kind of port with every set of offloads that makes a difference.
inline std::vector<OffloadKind> offload_kinds() {
  static constexpr OffloadCaps kAll = OffloadCaps::all();
  static constexpr OffloadCaps kNone{};
  static constexpr OffloadCaps kChecksum{.checksum = true};
  static constexpr OffloadCaps kNoEcn{.checksum = true, .tso4 = true, .tso6 = true, .uso = true};
  static constexpr OffloadCaps kTcp{.checksum = true, .tso4 = true, .tso6 = true};
  return {{{"ring", [] { return make_ring_harness(); }}, kAll},
          {{"ring_no_ecn", [] { return make_ring_harness(kNoEcn); }}, kNoEcn},
          {{"ring_csum", [] { return make_ring_harness(kChecksum); }}, kChecksum},
          {{"ring_plain", [] { return make_ring_harness(kNone); }}, kNone},
          {{"tap", [] { return make_tap_harness(); }}, kAll},
          {{"tap_plain", [] { return make_tap_harness(false); }}, kNone, kNone},
          {{"loop", [] { return make_loop_harness(); }}, kAll, kAll, true},
          {{"loop_plain", [] { return make_loop_harness(kNone); }}, kNone, kAll, true},
          {{"af_packet", [] { return make_af_packet_harness(); }}, kAll, kAll, true, true},
          {{"verbs", [] { return make_verbs_harness(); }}, kTcp, kNone, true, true, true}};
}

}  // namespace vswitch::test
