#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/ports/test_reactor.h"
#include "vswitch/core/port.h"
#include "vswitch/core/port_context.h"

namespace vswitch::test {

/// A frame as the far end of a port sends or sees it.
struct TestFrame {
  std::vector<std::byte> bytes;
  std::uint16_t vlan = 0;  ///< a tag that travels beside the bytes, where the kind of port has such a thing
  Offload offload;
  bool operator==(const TestFrame&) const = default;
};
/// For GoogleTest's messages.
inline void PrintTo(const TestFrame& frame, std::ostream* out) {
  *out << frame.bytes.size() << " bytes, vlan " << frame.vlan << ", flags " << unsigned{frame.offload.flags} << ", gso "
       << unsigned{frame.offload.gso_type} << "/" << frame.offload.gso_size << ", csum " << frame.offload.csum_start
       << "+" << frame.offload.csum_offset;
}

/// What a kind of port can do, as far as kinds may differ.
struct Traits {
  bool vlan_beside = false;         ///< a tag sent by the far end arrives in Frame::vlan; else inside the bytes
  bool sends_any_length = false;    ///< the far end can send runts
  bool sends_bad_offloads = false;  ///< the far end can send offload headers that contradict the frame
  bool behind_nic = false;          ///< there is a NIC between, which takes its time, and may be slower than we are
  bool never_full = false;          ///< whatever is transmitted, the far end's kernel takes at once
  bool finishes = false;            ///< between port and far end all checksums are there and GSO frames are cut
  bool one_worker = false;          ///< what one MAC gets comes to one worker
};

/// One kind of port with somebody at its other end. The suite makes it, starts the port, then connects.
class Harness {
 public:
  virtual ~Harness() = default;
  [[nodiscard]] virtual Traits traits() const = 0;
  /// The port under test, not started.
  virtual std::unique_ptr<Port> make_port(PortContext& context) = 0;
  /// After Port::start(): the far end opens or attaches.
  virtual void connect(Port& port, TestReactor& reactor) = 0;
  /// Far end: sends one frame. @return false if the far end's own system refused it
  virtual bool send(const TestFrame& frame) = 0;
  /// Far end: everything that arrived until now, waiting up to `timeout_ms` for the first.
  virtual std::vector<TestFrame> read(int timeout_ms) = 0;
  /// Makes the port's way out narrow, so that transmit() soon finds it full; and wide again.
  virtual void set_narrow(bool narrow) = 0;
  /// The far end goes away; the port's link goes down.
  virtual void close_far_end(TestReactor& reactor) = 0;
};

/// Name and maker of every kind; the suite runs over all of them.
struct Kind {
  const char* name;
  std::function<std::unique_ptr<Harness>()> make;
};
inline void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
/// @param takes unfinished frames that the far end is ready for
std::unique_ptr<Harness> make_loop_harness(OffloadCaps takes = OffloadCaps::all());
std::unique_ptr<Harness> make_af_packet_harness();
std::unique_ptr<Harness> make_verbs_harness();
std::unique_ptr<Harness> make_ring_harness(OffloadCaps takes = OffloadCaps::all());
/// @param offloads what "offloads" in tenants.json says
std::unique_ptr<Harness> make_tap_harness(bool offloads = true);

}  // namespace vswitch::test
