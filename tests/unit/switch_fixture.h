#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ports/loop/loop_port.h"
#include "vswitch/core/decide.h"
#include "vswitch/core/table.h"

// A switch of in-memory ports: uplink 0 ("lan") and tenants from 1 on.

namespace vswitch {

inline constexpr PortId kWire = 0;

inline Mac mac(std::uint8_t last) { return {{0x02, 0, 0, 0, 0, last}}; }
inline const Mac kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
inline const Mac kMulticast{{0x01, 0x00, 0x5e, 0x01, 0x02, 0x03}};
inline const Mac kLldp{{0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e}};
inline const Mac kHost = mac(0x01);
inline const Mac kPeer = mac(0xff);

/// A frame of `length` bytes; `tags` are inline TCIs.
inline std::vector<std::byte> ethernet(const Mac& to, const Mac& from, std::size_t length = 64,
                                       const std::vector<std::uint16_t>& tags = {}) {
  std::vector<std::byte> frame(length);
  for (std::size_t i = 0; i < length; ++i) frame[i] = static_cast<std::byte>(i);
  std::memcpy(frame.data(), to.bytes.data(), 6);
  std::memcpy(frame.data() + 6, from.bytes.data(), 6);
  std::size_t at = 12;
  for (const std::uint16_t tci : tags) {
    frame[at] = std::byte{0x81};
    frame[at + 1] = std::byte{0x00};
    frame[at + 2] = static_cast<std::byte>(tci >> 8);
    frame[at + 3] = static_cast<std::byte>(tci & 0xff);
    at += 4;
  }
  frame[at] = std::byte{0x88};
  frame[at + 1] = std::byte{0xb5};
  return frame;
}

struct Tenant {
  Mode mode = Mode::bridge;
  std::uint16_t vlan = 0;
  bool trusted = false;
  std::vector<Mac> macs = {};
  std::vector<Mac> source_macs = {};
  bool nodst = false;
};

/// Ports with the MACs mac(0x0a), mac(0x0b), ... in order.
class SwitchUnderTest {
 public:
  explicit SwitchUnderTest(const std::vector<Tenant>& tenants) {
    TableBuilder builder(1);
    for (std::size_t i = 0; i <= tenants.size(); ++i) ports_.push_back(std::make_unique<LoopPort>());
    for (const auto& port : ports_) port->start();
    builder.add_uplink(kWire, "lan", *ports_[0], 1500);
    for (std::size_t i = 0; i < tenants.size(); ++i) {
      PortSpec spec;
      spec.tenant = "t";
      spec.name = std::string(1, static_cast<char>('a' + i));
      spec.uplink = "lan";
      spec.mtu = 1500;
      spec.mac = mac(static_cast<std::uint8_t>(0x0a + i));
      spec.mode = tenants[i].mode;
      spec.vlan = tenants[i].vlan;
      spec.trusted = tenants[i].trusted;
      spec.macs = tenants[i].macs;
      spec.source_macs = tenants[i].source_macs;
      spec.nodst = tenants[i].nodst;
      builder.add_tenant(static_cast<PortId>(i + 1), spec, kWire, *ports_[i + 1]);
    }
    table_ = builder.build();
  }

  [[nodiscard]] const Table& table() const { return *table_; }
  [[nodiscard]] std::unique_ptr<const Table> take_table() { return std::move(table_); }
  [[nodiscard]] LoopPort& port(PortId id) { return *ports_[id]; }
  [[nodiscard]] LoopQueue& queue(PortId id) { return ports_[id]->queue(0); }
  [[nodiscard]] std::size_t size() const { return ports_.size(); }

  /// What decide() says of a frame.
  [[nodiscard]] Verdict verdict(PortId ingress, const std::vector<std::byte>& bytes, std::uint16_t vlan = 0) const {
    std::vector<std::byte> header(kHeaderBytes);
    std::memcpy(header.data(), bytes.data(), std::min(bytes.size(), kHeaderBytes));
    Frame frame;
    frame.data = bytes.data();
    frame.header = header.data();
    frame.length = static_cast<std::uint32_t>(bytes.size());
    frame.header_bytes = static_cast<std::uint16_t>(std::min(bytes.size(), kHeaderBytes));
    frame.vlan = vlan;
    return decide(ingress, frame, *table_);
  }
  /// The names of the ports that get the frame, "wire" for the uplink, in port order; or the drop reason in brackets.
  [[nodiscard]] std::string delivery(PortId ingress, const std::vector<std::byte>& bytes,
                                     std::uint16_t vlan = 0) const {
    const Verdict v = verdict(ingress, bytes, vlan);
    if (v.drop != Drop::none) return "[" + std::string(text_of(v.drop).name) + "]";
    std::vector<bool> gets(table_->port_slots());
    if (v.port != kNoPort) gets[v.port] = true;
    for (const PortId id : table_->group(v.group)) gets[id] = gets[id] || id != v.exclude;
    for (const PortId id : table_->group(v.sources)) gets[id] = true;
    std::string names;
    for (PortId id = 0; id < gets.size(); ++id) {
      if (gets[id])
        names += (names.empty() ? "" : " ") + (id == kWire ? std::string("wire") : table_->name(id).substr(2));
    }
    return names;
  }

 private:
  std::vector<std::unique_ptr<LoopPort>> ports_;
  std::unique_ptr<const Table> table_;
};

}  // namespace vswitch
