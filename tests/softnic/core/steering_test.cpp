#include "tests/softnic/core/steering.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace softnic {
namespace {

using Mac = std::array<std::uint8_t, 6>;
using Blob = std::vector<std::uint8_t>;

constexpr Mac kMacA{2, 0, 0, 0, 0, 0xa};
constexpr Mac kMacB{2, 0, 0, 0, 0, 0xb};
constexpr Mac kGroup{1, 0, 0x5e, 0, 0, 1};
constexpr Mac kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr OwnerId kOwner = 7, kOther = 8;

QueueRef q(std::uint32_t queue, OwnerId owner = kOwner) { return {owner, queue}; }

/// What a test's frame looks like; the rest of it is zero.
struct Spec {
  Mac dst = kMacA;
  Mac src = kMacB;
  std::optional<std::uint16_t> tci = {};
  int ip = 0;                   // 4, 6; 0: none
  std::uint16_t type = 0x88b5;  // without IP
  std::uint8_t protocol = 17;
  std::uint16_t fragment = 0;  // IPv4: flags and offset as on the wire
  std::uint8_t tos = 0x28;
  std::uint8_t ttl = 64;
  std::uint32_t label = 0x12345;
  Blob src_ip = {192, 0, 2, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  Blob dst_ip = {198, 51, 100, 2, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};
  std::uint16_t src_port = 0x1122;
  std::uint16_t dst_port = 0x3344;
};

/// Big-endian.
void put(Blob& out, std::initializer_list<unsigned> words) {
  for (const unsigned word : words) {
    out.push_back(static_cast<std::uint8_t>(word >> 8));
    out.push_back(static_cast<std::uint8_t>(word));
  }
}

Blob build(const Spec& spec) {
  Blob out(spec.dst.begin(), spec.dst.end());
  out.insert(out.end(), spec.src.begin(), spec.src.end());
  if (spec.tci) put(out, {0x8100, *spec.tci});
  put(out, {spec.ip == 0 ? spec.type : spec.ip == 4 ? 0x0800u : 0x86ddu});
  const unsigned l4_bytes = spec.protocol == 6 ? 20 : 8;
  if (spec.ip == 4) {
    put(out, {0x4500u | spec.tos, 20 + l4_bytes, 0, spec.fragment, unsigned{spec.ttl} << 8 | spec.protocol, 0});
  } else if (spec.ip == 6) {
    put(out, {0x6000u | unsigned{spec.tos} << 4 | spec.label >> 16, spec.label & 0xffff, l4_bytes});
    put(out, {unsigned{spec.protocol} << 8 | spec.ttl});
  }
  const std::ptrdiff_t address = spec.ip == 4 ? 4 : 16;
  out.insert(out.end(), spec.src_ip.begin(), spec.src_ip.begin() + address);
  out.insert(out.end(), spec.dst_ip.begin(), spec.dst_ip.begin() + address);
  const std::size_t l4 = out.size();
  put(out, {spec.src_port, spec.dst_port});
  out.resize(l4 + l4_bytes);
  if (spec.protocol == 6) out[l4 + 12] = 0x50;
  return out;
}

FlowKey key_of(const Blob& frame, std::uint8_t port = 1) { return flow_key(port, frame, parse(frame)); }

Steered classify(const Steering& steering, const Blob& frame, std::uint8_t port = 1) {
  Steered out;
  out.to.push_back({q(4711)});  // of the frame before
  out.dropped = out.trapped = out.kernel = true;
  steering.classify(port, frame, parse(frame), out);
  return out;
}
Steered classify(const Steering& steering, const Spec& spec, std::uint8_t port = 1) {
  return classify(steering, build(spec), port);
}

std::vector<std::uint32_t> queues(const Steered& steered) {
  std::vector<std::uint32_t> out;
  for (const Delivery& delivery : steered.to) out.push_back(delivery.queue.queue);
  return out;
}
using Queues = std::vector<std::uint32_t>;

/// Owner, queue, whether there is a tag, tag.
using Deliveries = std::vector<std::tuple<OwnerId, std::uint32_t, bool, std::uint32_t>>;
Deliveries deliveries(const Steered& steered) {
  Deliveries out;
  for (const Delivery& d : steered.to) out.emplace_back(d.queue.owner, d.queue.queue, d.tagged, d.tag);
  return out;
}

Rule rule_of(RuleKind kind, std::uint32_t queue) {
  Rule rule;
  rule.kind = kind;
  rule.queue = q(queue);
  return rule;
}
Rule mc(std::uint32_t queue) { return rule_of(RuleKind::mc_default, queue); }
Rule all(std::uint32_t queue) { return rule_of(RuleKind::all_default, queue); }
Rule sniffer(std::uint32_t queue) { return rule_of(RuleKind::sniffer, queue); }
Rule mac(std::uint32_t queue, const Mac& dst = kMacA, std::uint16_t priority = 0) {
  Rule rule = rule_of(RuleKind::normal, queue);
  rule.priority = priority;
  rule.value.dst_mac = dst;
  rule.mask.dst_mac.fill(0xff);
  return rule;
}
Rule group(std::uint32_t queue, std::uint16_t priority = 0) { return mac(queue, kGroup, priority); }
Rule vlan(std::uint32_t queue, std::uint16_t id, const Mac& dst = kMacA) {
  Rule rule = mac(queue, dst);
  store_be16(rule.value.vlan_tag.data(), id);
  store_be16(rule.mask.vlan_tag.data(), 0x0fff);
  rule.value.kinds = rule.mask.kinds = FlowKey::kTagged;
  return rule;
}
template <class Value>
Rule with(Rule rule, Value Rule::*member, std::type_identity_t<Value> value) {
  rule.*member = value;
  return rule;
}
void add(Steering& steering, const std::vector<Rule>& rules) {
  for (const Rule& rule : rules) steering.add(rule);
}
Rule passing(const Rule& rule) { return with(rule, &Rule::dont_trap, true); }
Rule dropping(const Rule& rule) { return with(rule, &Rule::drop, true); }
Rule tagged(const Rule& rule, std::uint32_t tag) { return with(with(rule, &Rule::tagged, true), &Rule::tag, tag); }

TEST(FlowKey, OfEveryPrefixOfAFrame) {
  for (const Spec& spec : {Spec{.tci = 5, .ip = 4}, Spec{.ip = 6}, Spec{.tci = 5, .ip = 6, .protocol = 6}}) {
    const Blob frame = build(spec);
    for (std::size_t length = 0; length <= frame.size(); ++length) {
      const Blob cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length));  // ASan sees its end
      const FlowKey key = key_of(cut, 3);
      EXPECT_EQ(key.port, 3);
      EXPECT_EQ(key.dst_mac, length < 14 ? Mac{} : spec.dst) << length;
      EXPECT_EQ((key.kinds & (FlowKey::kTcp | FlowKey::kUdp)) != 0, length == frame.size()) << length;
    }
  }
}

// Where a field of the key lies.
constexpr std::size_t kDstMac = offsetof(FlowKey, dst_mac), kSrcMac = offsetof(FlowKey, src_mac);
constexpr std::size_t kType = offsetof(FlowKey, ether_type), kTci = offsetof(FlowKey, vlan_tag);
constexpr std::size_t kSrcIp = offsetof(FlowKey, src_ip), kDstIp = offsetof(FlowKey, dst_ip);
constexpr std::size_t kSrcPort = offsetof(FlowKey, src_port), kDstPort = offsetof(FlowKey, dst_port);
constexpr std::size_t kLabel = offsetof(FlowKey, flow_label), kProtocol = offsetof(FlowKey, protocol);
constexpr std::size_t kTos = offsetof(FlowKey, tos), kTtl = offsetof(FlowKey, ttl);
constexpr std::size_t kKinds = offsetof(FlowKey, kinds), kFlags = offsetof(FlowKey, ip_flags);
std::uint8_t* bytes_of(FlowKey& key) { return reinterpret_cast<std::uint8_t*>(&key); }

/// One field: a rule that looks at nothing else takes `frame` and not what `change` makes of it.
struct Field {
  std::string name;
  Spec frame;
  std::function<void(Spec&)> change;
  std::size_t offset;
  Blob value;
  Blob mask = Blob(value.size(), 0xff);
};

std::vector<Field> ethernet_fields() {
  const Spec plain;
  const Spec tagged{.tci = 0x6123};
  const auto tci = [](std::optional<std::uint16_t> value) { return [value](Spec& s) { s.tci = value; }; };
  return {
      {"dst mac", plain, [](Spec& s) { s.dst[5] ^= 1; }, kDstMac, {2, 0, 0, 0, 0, 0xa}},
      {"group bit", {.dst = kGroup}, [](Spec& s) { s.dst[0] ^= 1; }, kDstMac, {0xff}, {1}},
      {"src mac", plain, [](Spec& s) { s.src[0] ^= 4; }, kSrcMac, {2, 0, 0, 0, 0, 0xb}},
      {"type", plain, [](Spec& s) { s.type ^= 1; }, kType, {0x88, 0xb5}},
      {"type behind tag", tagged, [](Spec& s) { s.type ^= 0x100; }, kType, {0x88, 0xb5}},
      {"vlan id", tagged, tci(0x6124), kTci, {0x01, 0x23}, {0x0f, 0xff}},
      {"pcp", tagged, tci(0x4123), kTci, {0x60, 0}, {0xe0, 0}},
      {"whole tci", tagged, tci(0x4123), kTci, {0x61, 0x23}},
      {"tagged", tagged, tci({}), kKinds, {FlowKey::kTagged}, {FlowKey::kTagged}},
      {"untagged", plain, tci(0), kKinds, {0}, {FlowKey::kTagged}},
  };
}

std::vector<Field> ip_fields() {
  const Spec v4{.ip = 4};
  const Spec v6{.ip = 6};
  const Spec more{.ip = 4, .fragment = 0x2000};
  const auto fragment = [](std::uint16_t bits) { return [bits](Spec& s) { s.fragment ^= bits; }; };
  const auto version = [](int ip) { return [ip](Spec& s) { s.ip = ip; }; };
  const auto dst = [](Spec& s) { s.dst_ip[0] ^= 0x80; };
  const auto tos = [](Spec& s) { s.tos ^= 0x04; };
  const auto ttl = [](Spec& s) { --s.ttl; };
  const auto protocol = [](Spec& s) { s.protocol ^= 6 ^ 17; };
  const auto src_port = [](Spec& s) { s.src_port ^= 1; };
  const auto dst_port = [](Spec& s) { s.dst_port ^= 0x8000; };
  return {
      {"ipv4", v4, version(6), kKinds, {FlowKey::kIpv4}, {FlowKey::kIpv4}},
      {"ipv4 src", v4, [](Spec& s) { s.src_ip[3] ^= 1; }, kSrcIp, {192, 0, 2, 1}},
      {"ipv4 dst", v4, dst, kDstIp, {198, 51, 100, 2}},
      {"ipv4 prefix", v4, dst, kDstIp, {192}, {0xe0}},
      {"tos", v4, tos, kTos, {0x28}},
      {"ttl", v4, ttl, kTtl, {64}},
      {"ipv4 protocol", v4, protocol, kProtocol, {17}},
      {"no df", v4, fragment(0x4000), kFlags, {0}, {2}},
      {"df", {.ip = 4, .fragment = 0x4000}, fragment(0x6000), kFlags, {2}, {6}},
      {"mf", more, fragment(0x2000), kFlags, {4}},
      {"no reserved flag", {.ip = 4, .fragment = 0x8000}, fragment(0x4000), kFlags, {0}},
      {"fragments have no l4", v4, fragment(0x2000), kKinds, {FlowKey::kUdp}, {FlowKey::kUdp}},
      {"nor ports", more, fragment(0x2000), kSrcPort, {0, 0}},
      {"but a protocol", more, protocol, kProtocol, {17}},
      {"ipv6", v6, version(4), kKinds, {FlowKey::kIpv6}, {FlowKey::kIpv6}},
      {"ipv6 src", v6, [](Spec& s) { s.src_ip[15] ^= 1; }, kSrcIp, v6.src_ip},
      {"ipv6 dst", v6, [](Spec& s) { s.dst_ip[8] ^= 1; }, kDstIp, v6.dst_ip},
      {"class", v6, tos, kTos, {0x28}},
      {"hops", v6, ttl, kTtl, {64}},
      {"ipv6 next", v6, protocol, kProtocol, {17}},
      {"udp4", v4, protocol, kKinds, {FlowKey::kUdp}, {FlowKey::kUdp}},
      {"tcp4", {.ip = 4, .protocol = 6}, protocol, kKinds, {FlowKey::kTcp}, {FlowKey::kTcp}},
      {"tcp6", {.ip = 6, .protocol = 6}, protocol, kKinds, {FlowKey::kTcp}, {FlowKey::kTcp}},
      {"udp4 src port", v4, src_port, kSrcPort, {0x11, 0x22}},
      {"udp4 dst port", v4, dst_port, kDstPort, {0x33, 0x44}},
      {"tcp6 src port", {.ip = 6, .protocol = 6}, src_port, kSrcPort, {0x11, 0x22}},
      {"tcp6 dst port", {.ip = 6, .protocol = 6}, dst_port, kDstPort, {0x33, 0x44}},
      {"label", v6, [](Spec& s) { s.label ^= 0x10000; }, kLabel, {0, 1, 0x23, 0x45}},
  };
}

TEST(Steering, EachFieldAlone) {
  std::vector<Field> fields = ethernet_fields();
  for (const Field& field : ip_fields()) fields.push_back(field);
  for (const Field& field : fields) {
    SCOPED_TRACE(field.name);
    Rule rule = rule_of(RuleKind::normal, 1);
    std::memcpy(bytes_of(rule.value) + field.offset, field.value.data(), field.value.size());
    std::memcpy(bytes_of(rule.mask) + field.offset, field.mask.data(), field.mask.size());
    Steering steering;
    steering.add(rule);
    Spec other = field.frame;
    field.change(other);
    EXPECT_EQ(queues(classify(steering, field.frame)), Queues{1});
    EXPECT_EQ(queues(classify(steering, other)), Queues{});
  }
}

TEST(Steering, VlanAndMac) {
  Steering steering;
  add(steering, {vlan(1, 100), vlan(2, 200), vlan(3, 100, kMacB), vlan(4, 0), mac(5, kMacA, 1)});
  const std::vector<std::tuple<Mac, std::optional<std::uint16_t>, Queues>> cases = {
      {kMacA, 100, {1}}, {kMacA, 0xe000 | 100, {1}}, {kMacA, 200, {2}}, {kMacB, 100, {3}}, {kMacB, 200, {}},
      {kMacA, 0, {4}},   {kMacA, 0x7000, {4}},       {kMacA, {}, {5}},  {kMacA, 300, {5}}, {kMacB, {}, {}},
  };
  for (const auto& [dst, tci, expected] : cases) {
    SCOPED_TRACE(tci.value_or(9999));
    const Steered got = classify(steering, {.dst = dst, .tci = tci});
    EXPECT_EQ(queues(got), expected);
    EXPECT_EQ(got.kernel, expected.empty());
    EXPECT_EQ(got.trapped, !expected.empty());
  }
}

/// Rules in the order in which they are added, queue numbers from 1; what becomes of a frame.
struct Case {
  std::string name;
  std::vector<Rule> rules;
  Spec frame;
  Queues to;
  bool kernel = false;
  bool dropped = false;
};

std::vector<Case> order_cases() {
  Rule src = rule_of(RuleKind::normal, 9);
  src.value.src_mac = kMacB;
  src.mask.src_mac.fill(0xff);
  return {
      {"no rules", {}, {}, {}, true},
      {"lower number first", {mac(1, kMacA, 5), mac(2, kMacA, 3)}, {}, {2}},
      {"first mask wins", {mac(1), src}, {}, {1}},
      {"first mask wins, other order", {src, mac(1)}, {}, {9}},
      {"later mask, lower number", {mac(1, kMacA, 1), src}, {}, {9}},
      {"equal rules", {mac(1), mac(2)}, {}, {1, 2}},
      {"dont_trap, then the kernel", {passing(mac(1))}, {}, {1}, true},
      {"dont_trap, then a trap", {passing(mac(1)), mac(2, kMacA, 1), mac(3, kMacA, 2)}, {}, {1, 2}},
      {"dont_trap, then a mask of the same priority", {passing(mac(1)), src}, {}, {1, 9}},
      {"dont_trap beside a trap", {passing(mac(1)), mac(2), mac(3, kMacA, 1)}, {}, {1, 2}},
      {"one queue at two places", {passing(mac(1)), mac(1, kMacA, 1)}, {}, {1}},
      {"multicast to two and the kernel", {passing(group(1)), passing(group(2))}, {.dst = kGroup}, {1, 2}, true},
      {"chain and the kernel", {passing(group(1)), passing(group(3, 1))}, {.dst = kGroup}, {1, 3}, true},
      {"chain and mc default", {mc(5), passing(group(1)), passing(group(3, 1))}, {.dst = kGroup}, {1, 3, 5}},
      {"chain and all default", {mc(5), all(6), passing(mac(1))}, {}, {1, 6}},
  };
}

std::vector<Case> default_cases() {
  return {
      {"mc default: multicast", {mc(5), mc(15)}, {.dst = kGroup}, {5, 15}},
      {"mc default: broadcast", {mc(5)}, {.dst = kBroadcast}, {5}},
      {"mc default: unicast", {mc(5)}, {}, {}, true},
      {"mc before all", {all(6), mc(5)}, {.dst = kGroup}, {5}},
      {"all default: unicast", {mc(5), all(6), all(16)}, {}, {6, 16}},
      {"normal before defaults", {all(6), mc(5), group(1, 9)}, {.dst = kGroup}, {1}},
      {"defaults always trap", {passing(all(6))}, {}, {6}},
      {"default drops", {dropping(all(6))}, {}, {}, false, true},
      {"sniffers and the kernel", {sniffer(8), sniffer(18)}, {}, {8, 18}, true},
      {"sniffer beside a rule", {sniffer(8), mac(1)}, {}, {1, 8}},
      {"sniffer that has a rule", {sniffer(8), mac(8), mac(1)}, {}, {8, 1}},
      {"sniffer of what is dropped", {sniffer(8), dropping(mac(1))}, {}, {8}, false, true},
      {"sniffer never drops", {dropping(sniffer(8))}, {}, {}, true},
      {"drop", {dropping(mac(1)), all(6), mac(2, kMacA, 1)}, {}, {}, false, true},
      {"drop below dont_trap", {passing(mac(2)), dropping(mac(1, kMacA, 1))}, {}, {2}, false, true},
      {"drop above", {mac(2, kMacA, 1), dropping(mac(1))}, {}, {}, false, true},
      {"drop that does not trap", {passing(dropping(mac(1)))}, {}, {}, true},
      {"drop beside an equal rule", {dropping(mac(1)), mac(2)}, {}, {2}, false, true},
  };
}

TEST(Steering, OrderAndDefaults) {
  std::vector<Case> cases = order_cases();
  for (const Case& c : default_cases()) cases.push_back(c);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Steering steering;
    add(steering, c.rules);
    const Steered got = classify(steering, c.frame);
    EXPECT_EQ(queues(got), c.to);
    EXPECT_EQ(got.kernel, c.kernel);
    EXPECT_EQ(got.dropped, c.dropped);
  }
}

TEST(Steering, FirstTagWins) {
  Steering steering;
  add(steering, {tagged(sniffer(2), 33), tagged(sniffer(1), 34)});
  add(steering, {tagged(mac(1, kMacA, 1), 0), tagged(mac(1), 0xffffffff)});
  const auto got = [&](const Mac& dst) { return deliveries(classify(steering, {.dst = dst})); };
  EXPECT_EQ(got(kMacA), (Deliveries{{kOwner, 1, true, 0xffffffff}, {kOwner, 2, true, 33}}));
  EXPECT_EQ(got(kMacB), (Deliveries{{kOwner, 2, true, 33}, {kOwner, 1, true, 34}}));
  steering.remove_queue(q(2));
  steering.add(with(mac(1, kMacB), &Rule::tag, 5));  // a tag that is not asked for
  EXPECT_EQ(got(kMacB), (Deliveries{{kOwner, 1, false, 0}}));
}

TEST(Steering, PortsAreApart) {
  constexpr std::array<std::uint8_t, 3> kPorts{1, 2, 255};
  Steering steering;
  for (const std::uint8_t port : kPorts) {
    for (const Rule& rule : {mac(port), all(1000u + port), mc(2000u + port), sniffer(3000u + port)}) {
      steering.add(with(rule, &Rule::port, port));
    }
  }
  for (const std::uint8_t port : kPorts) {
    EXPECT_EQ(queues(classify(steering, Spec{}, port)), (Queues{port, 3000u + port}));
    EXPECT_EQ(queues(classify(steering, {.dst = kMacB}, port)), (Queues{1000u + port, 3000u + port}));
    EXPECT_EQ(queues(classify(steering, {.dst = kGroup}, port)), (Queues{2000u + port, 3000u + port}));
  }
  EXPECT_TRUE(classify(steering, Spec{}, 3).kernel && classify(steering, Spec{}, 0).kernel);
}

TEST(Steering, SniffAppends) {
  Steering steering;
  add(steering, {sniffer(1), sniffer(2), all(3)});
  Steered out;
  out.to.push_back({q(2), 77, true});
  out.dropped = true;
  for (const std::uint8_t port : {std::uint8_t{1}, std::uint8_t{2}}) steering.sniff(port, out);
  EXPECT_EQ(deliveries(out), (Deliveries{{kOwner, 2, true, 77}, {kOwner, 1, false, 0}}));
  EXPECT_TRUE(out.dropped && !out.kernel);
}

TEST(Steering, Runts) {
  Steering steering;
  steering.add(mc(1));
  EXPECT_TRUE(classify(steering, Blob{}).kernel && classify(steering, Blob(13, 0xff)).kernel);
  EXPECT_EQ(queues(classify(steering, Blob(14, 0xff))), Queues{1});
  steering.add(all(2));
  EXPECT_EQ(queues(classify(steering, Blob{})), Queues{2});
}

TEST(Steering, RemovesByIdOnlyForTheOwner) {
  Steering steering;
  for (const RuleKind kind : {RuleKind::normal, RuleKind::all_default, RuleKind::mc_default, RuleKind::sniffer}) {
    const RuleId first = steering.add(rule_of(kind, 1));
    const RuleId second = steering.add(rule_of(kind, 2));
    EXPECT_EQ(steering.size(), 2u);
    EXPECT_FALSE(steering.remove(kOther, first));
    EXPECT_FALSE(steering.remove(kOwner, second + 1));
    EXPECT_EQ(queues(classify(steering, {.dst = kGroup})), (Queues{1, 2}));
    EXPECT_TRUE(steering.remove(kOwner, first));
    EXPECT_FALSE(steering.remove(kOwner, first));
    EXPECT_EQ(queues(classify(steering, {.dst = kGroup})), Queues{2});
    EXPECT_TRUE(steering.remove(kOwner, second));
    EXPECT_EQ(steering.size(), 0u);
    EXPECT_TRUE(classify(steering, {.dst = kGroup}).kernel);
  }
}

TEST(Steering, RemovesByOwnerAndByQueue) {
  Steering steering;
  for (const QueueRef queue : {q(1), q(2), q(3, kOther)}) {
    for (const Rule& rule : {mac(0), sniffer(0), all(0), mc(0)}) steering.add(with(rule, &Rule::queue, queue));
  }
  const auto expect = [&](std::size_t rules, const Queues& left) {
    EXPECT_EQ(steering.size(), rules);
    for (const Mac& dst : {kMacA, kMacB, kGroup}) EXPECT_EQ(queues(classify(steering, {.dst = dst})), left);
  };
  expect(12, {1, 2, 3});
  steering.remove_queue(q(1, kOther));  // the number of another owner's
  expect(12, {1, 2, 3});
  steering.remove_queue(q(1));
  expect(8, {2, 3});
  steering.remove_owner(kOwner);
  expect(4, {3});
  steering.remove_owner(kOther);
  expect(0, {});
}

TEST(Steering, ManyMacsComeAndGo) {
  constexpr std::uint32_t kRules = 1024;
  const auto address = [](std::uint32_t i) {
    return Mac{2, 0, 0, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
  };
  Steering steering;
  std::vector<RuleId> ids;
  for (std::uint32_t i = 0; i < kRules; ++i) ids.push_back(steering.add(mac(i + 1, address(i))));
  const auto check = [&](auto present) {
    for (std::uint32_t i = 0; i < kRules; ++i) {
      ASSERT_EQ(queues(classify(steering, {.dst = address(i)})), present(i) ? Queues{i + 1} : Queues{}) << i;
    }
    EXPECT_TRUE(classify(steering, {.dst = address(kRules)}).kernel);
  };
  check([](std::uint32_t) { return true; });
  for (std::uint32_t i = 0; i < kRules; i += 2) EXPECT_TRUE(steering.remove(kOwner, ids[i]));
  check([](std::uint32_t i) { return i % 2 == 1; });
  for (std::uint32_t i = 0; i < kRules; i += 2) steering.add(mac(i + 1, address(i)));
  check([](std::uint32_t) { return true; });
}

/// The same by the plainest means: each frame is held against each rule.
struct Naive {
  struct Known {
    RuleId id;
    std::size_t rank;  // among NORMAL rules of one priority: when its mask was used first
    Rule rule;
  };
  std::vector<Known> rules;
  std::size_t last_rank = 0;

  void add(RuleId id, Rule rule) {
    std::size_t rank = ++last_rank;
    for (const Known& known : rules) {
      const Rule& other = known.rule;
      if (other.kind == RuleKind::normal && other.priority == rule.priority && other.mask == rule.mask) {
        rank = known.rank;
      }
    }
    rules.push_back({id, rank, rule});
  }

  [[nodiscard]] Steered classify(std::uint8_t port, const Blob& frame) const {
    using Level = std::pair<std::uint32_t, std::size_t>;
    std::map<Level, std::vector<const Rule*>> levels;
    std::vector<const Rule*> sniffers;
    for (const auto& [id, rank, rule] : rules) {
      if (rule.port != port) continue;
      if (rule.kind == RuleKind::normal && hits(rule, key_of(frame))) levels[{rule.priority, rank}].push_back(&rule);
      if (rule.kind == RuleKind::mc_default && (frame[0] & 1) != 0) levels[{70'000, 0}].push_back(&rule);
      if (rule.kind == RuleKind::all_default) levels[{80'000, 0}].push_back(&rule);
      if (rule.kind == RuleKind::sniffer) sniffers.push_back(&rule);
    }
    Steered out;
    out.kernel = true;
    for (auto level = levels.begin(); level != levels.end() && out.kernel; ++level) {
      for (const Rule* rule : level->second) {
        const bool traps = !rule->dont_trap || rule->kind != RuleKind::normal;
        if (traps) out.kernel = false;
        out.trapped = out.trapped || (traps && rule->kind == RuleKind::normal);
        if (traps && rule->drop) out.dropped = true;
        deliver(*rule, out);
      }
    }
    for (const Rule* rule : sniffers) deliver(*rule, out);
    return out;
  }

  static bool hits(Rule rule, FlowKey key) {
    for (std::size_t i = 0; i < sizeof key; ++i) {
      if (((bytes_of(rule.value)[i] ^ bytes_of(key)[i]) & bytes_of(rule.mask)[i]) != 0) return false;
    }
    return true;
  }
  static void deliver(const Rule& rule, Steered& out) {
    bool there = rule.drop;
    for (const Delivery& delivery : out.to) there = there || delivery.queue == rule.queue;
    if (!there) out.to.push_back({rule.queue, rule.tagged ? rule.tag : 0, rule.tagged});
  }
};

struct Random {
  explicit Random(std::uint32_t seed) : engine(seed) {}
  std::mt19937 engine;
  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(engine() % limit); }
  bool one_in(std::uint32_t n) { return below(n) == 0; }

  Spec frame() {
    static constexpr std::array kMacs{kMacA, kMacB, kGroup, kBroadcast};
    Spec spec;
    spec.dst = kMacs[below(4)];
    spec.src = kMacs[below(2)];
    if (one_in(2)) spec.tci = static_cast<std::uint16_t>(below(3) | (one_in(2) ? 0x2000u : 0));
    spec.ip = std::array{0, 4, 6}[below(3)];
    spec.protocol = one_in(2) ? 6 : 17;
    spec.fragment = std::array<std::uint16_t, 4>{0, 0, 0x4000, 0x2000}[below(4)];
    spec.dst_ip[3] = static_cast<std::uint8_t>(below(3));
    spec.dst_port = static_cast<std::uint16_t>(below(3));
    return spec;
  }

  /// The values are those of some frame, so that rules hit; the mask looks at up to four fields.
  Rule rule() {
    static constexpr std::array<std::pair<std::size_t, std::size_t>, 8> kFields{
        {{kDstMac, 6}, {kSrcMac, 6}, {kType, 2}, {kTci, 2}, {kDstIp, 4}, {kDstPort, 2}, {kKinds, 1}, {kFlags, 1}}};
    Rule rule;
    if (one_in(20)) rule.kind = static_cast<RuleKind>(1 + below(3));
    rule.port = static_cast<std::uint8_t>(1 + below(2));
    rule.priority = static_cast<std::uint16_t>(below(3));
    rule.dont_trap = one_in(3);
    rule.drop = one_in(8);
    rule.tagged = one_in(2);
    rule.tag = below(100);
    rule.queue = {1 + below(3), 1 + below(6)};
    rule.value = key_of(build(frame()));
    for (std::uint32_t i = 1 + below(4); i > 0; --i) {
      const auto [offset, size] = kFields[below(kFields.size())];
      std::memset(bytes_of(rule.mask) + offset, one_in(4) ? 0x0f : 0xff, size);
    }
    return rule;
  }
};

/// Adds a rule, or removes one, those of a queue or those of an owner, from both.
void change(Random& random, Steering& steering, Naive& naive) {
  const std::size_t count = naive.rules.size();
  const QueueRef queue{1 + random.below(3), 1 + random.below(6)};
  if (count < 5 || (count < 60 && !random.one_in(3))) {
    const Rule rule = random.rule();
    naive.add(steering.add(rule), rule);
  } else if (!random.one_in(20)) {
    const Naive::Known known = naive.rules[random.below(static_cast<std::uint32_t>(count))];
    EXPECT_FALSE(steering.remove(known.rule.queue.owner + 1, known.id));
    EXPECT_TRUE(steering.remove(known.rule.queue.owner, known.id));
    std::erase_if(naive.rules, [&](const auto& other) { return other.id == known.id; });
  } else if (random.one_in(3)) {
    steering.remove_owner(queue.owner);
    std::erase_if(naive.rules, [&](const auto& known) { return known.rule.queue.owner == queue.owner; });
  } else {
    steering.remove_queue(queue);
    std::erase_if(naive.rules, [&](const auto& known) { return known.rule.queue == queue; });
  }
}

TEST(Steering, IsAsNaive) {
  Random random(20'240'607);
  Steering steering;
  Naive naive;
  int kernel = 0;
  int dropped = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (i % 4 == 0) change(random, steering, naive);
    ASSERT_EQ(steering.size(), naive.rules.size());
    const Blob frame = build(random.frame());
    const std::uint8_t port = static_cast<std::uint8_t>(1 + random.below(2));
    const Steered got = classify(steering, frame, port);
    const Steered expected = naive.classify(port, frame);
    ASSERT_EQ(deliveries(got), deliveries(expected)) << "frame " << i;
    ASSERT_EQ(got.kernel, expected.kernel) << "frame " << i;
    ASSERT_EQ(got.trapped, expected.trapped) << "frame " << i;
    ASSERT_EQ(got.dropped, expected.dropped) << "frame " << i;
    kernel += got.kernel;
    dropped += got.dropped;
  }
  EXPECT_GT(kernel, 500);  // the rules are such that all of it happens
  EXPECT_GT(dropped, 500);
}

}  // namespace
}  // namespace softnic
