// Tuple space search: all NORMAL rules of one priority and mask are one hash table, so that a frame costs one look-up a
// mask, however many rules there are. (V. Srinivasan, S. Suri, G. Varghese: Packet Classification using Tuple Space
// Search, SIGCOMM 1999.)

#include "tests/softnic/core/steering.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <utility>

namespace softnic {
namespace {

constexpr std::size_t kWords = sizeof(FlowKey) / sizeof(std::uint64_t);
using Words = std::array<std::uint64_t, kWords>;

Words words_of(const FlowKey& key) noexcept { return std::bit_cast<Words>(key); }

/// What a frame's way needs of a rule.
struct Entry {
  RuleId id = 0;
  Delivery delivery;
  bool drop = false;
  bool dont_trap = false;
};
using Entries = std::vector<Entry>;  // in the order in which they were added

void erase(Entries& entries, RuleId id) noexcept {
  const auto at = std::find_if(entries.begin(), entries.end(), [id](const Entry& entry) { return entry.id == id; });
  if (at != entries.end()) entries.erase(at);
}

/// The NORMAL rules of one priority and mask: an open hash table with linear probing. Looks only at the words of a key
/// that the mask lets through, two or three as a rule.
class Group {
 public:
  Group(std::uint16_t priority, const Words& mask) : priority_(priority), mask_(mask), slots_(kFewestSlots) {
    for (std::size_t i = 0; i < kWords; ++i) {
      if (mask[i] != 0) used_[used_count_++] = static_cast<std::uint8_t>(i);
    }
  }

  [[nodiscard]] std::uint16_t priority() const noexcept { return priority_; }
  [[nodiscard]] const Words& mask() const noexcept { return mask_; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  /// @return null if no rule matches
  [[nodiscard]] const Entries* find(const Words& key) const noexcept {
    const Slot& slot = slots_[position(key, hash_of(key))];
    return slot.match ? &slot.match->entries : nullptr;
  }

  void add(const Words& key, const Entry& entry) {
    const std::uint64_t hash = hash_of(key);
    std::size_t at = position(key, hash);
    if (!slots_[at].match) {
      if (2 * ++count_ > slots_.size()) {
        grow();
        at = position(key, hash);
      }
      slots_[at] = {hash, std::make_unique<Match>()};
      for (std::size_t i = 0; i < kWords; ++i) slots_[at].match->key[i] = key[i] & mask_[i];
    }
    slots_[at].match->entries.push_back(entry);
  }

  void remove(const Words& key, RuleId id) noexcept {
    const std::size_t at = position(key, hash_of(key));
    if (!slots_[at].match) return;
    erase(slots_[at].match->entries, id);
    if (slots_[at].match->entries.empty()) vacate(at);
  }

 private:
  struct Match {
    Words key{};
    Entries entries;
  };
  struct Slot {
    std::uint64_t hash = 0;
    std::unique_ptr<Match> match;  // null: vacant
  };
  static constexpr std::size_t kFewestSlots = 16;  // a power of two, as all sizes are; at most half of them are used

  [[nodiscard]] std::size_t next(std::size_t at) const noexcept { return (at + 1) & (slots_.size() - 1); }

  [[nodiscard]] std::uint64_t hash_of(const Words& key) const noexcept {
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < used_count_; ++i) {
      const std::size_t word = used_[i];
      hash = (std::rotl(hash, 23) ^ (key[word] & mask_[word])) * 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
    }
    return hash ^ hash >> 32;
  }

  [[nodiscard]] bool same(const Words& key, const Words& masked) const noexcept {
    for (std::size_t i = 0; i < used_count_; ++i) {
      const std::size_t word = used_[i];
      if ((key[word] & mask_[word]) != masked[word]) return false;
    }
    return true;
  }

  /// @return the slot of the key, or the vacant one where it belongs
  [[nodiscard]] std::size_t position(const Words& key, std::uint64_t hash) const noexcept {
    std::size_t at = hash & (slots_.size() - 1);
    while (slots_[at].match && !(slots_[at].hash == hash && same(key, slots_[at].match->key))) at = next(at);
    return at;
  }

  void grow() {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(2 * slots_.size()));
    for (Slot& slot : old) {
      if (slot.match) slots_[position(slot.match->key, slot.hash)] = std::move(slot);
    }
  }

  /// Those that follow without a gap may have been pushed off their place by this one: they are placed again.
  void vacate(std::size_t at) noexcept {
    --count_;
    slots_[at].match.reset();
    for (std::size_t i = next(at); slots_[i].match; i = next(i)) {
      Slot moved = std::move(slots_[i]);
      slots_[position(moved.match->key, moved.hash)] = std::move(moved);
    }
  }

  std::uint16_t priority_;
  Words mask_;
  std::array<std::uint8_t, kWords> used_{};
  std::size_t used_count_ = 0;
  std::vector<Slot> slots_;
  std::size_t count_ = 0;
};

/// The rules of one port that are not NORMAL.
struct PortRules {
  Entries all_default;
  Entries mc_default;
  Entries sniffers;

  Entries& of(RuleKind kind) noexcept {
    if (kind == RuleKind::sniffer) return sniffers;
    return kind == RuleKind::mc_default ? mc_default : all_default;
  }
};

/// Where the entry of a rule is.
struct Place {
  QueueRef queue;
  RuleKind kind = RuleKind::normal;
  std::uint8_t port = 0;
  Group* group = nullptr;  // of NORMAL rules
  Words key{};             // likewise
};

void deliver(const Delivery& delivery, Steered& out) {
  const auto same = [&](const Delivery& d) { return d.queue == delivery.queue; };
  if (std::none_of(out.to.begin(), out.to.end(), same)) out.to.push_back(delivery);
}

/// @return whether the frame stays here; a rule that does not trap drops nothing.
bool take(const Entries& entries, Steered& out) {
  bool trapped = false;
  for (const Entry& entry : entries) {
    trapped |= !entry.dont_trap;
    if (!entry.drop) {
      deliver(entry.delivery, out);
    } else if (!entry.dont_trap) {
      out.dropped = true;
    }
  }
  return trapped;
}

void copy_to(const std::vector<Entry>& sniffers, Steered& out) {
  for (const Entry& entry : sniffers) {
    if (!entry.drop) deliver(entry.delivery, out);
  }
}

template <std::size_t N>
void copy_bytes(std::array<std::uint8_t, N>& to, const std::uint8_t* from) noexcept {
  std::memcpy(to.data(), from, N);
}

void fill_ipv4(const std::uint8_t* ip, FlowKey& key) noexcept {
  std::memcpy(key.src_ip.data(), ip + 12, 4);
  std::memcpy(key.dst_ip.data(), ip + 16, 4);
  key.tos = ip[1];
  key.ttl = ip[8];
  const bool dont_fragment = (ip[6] & 0x40) != 0;
  const bool more_fragments = (ip[6] & 0x20) != 0;
  key.ip_flags = static_cast<std::uint8_t>((dont_fragment ? 2 : 0) | (more_fragments ? 4 : 0));
}

void fill_ipv6(const std::uint8_t* ip, FlowKey& key) noexcept {
  copy_bytes(key.src_ip, ip + 8);
  copy_bytes(key.dst_ip, ip + 24);
  key.tos = static_cast<std::uint8_t>(load_be16(ip) >> 4);
  store_be32(key.flow_label.data(), load_be32(ip) & 0xfffff);
  key.ttl = ip[7];
}

}  // namespace

FlowKey flow_key(std::uint8_t port, Bytes frame, const Headers& headers) noexcept {
  FlowKey key;
  key.port = port;
  if (frame.size() < 14) return key;
  copy_bytes(key.dst_mac, &frame[0]);
  copy_bytes(key.src_mac, &frame[6]);
  store_be16(key.ether_type.data(), headers.ether_type);
  store_be16(key.vlan_tag.data(), headers.tci);
  int kinds = headers.tagged ? FlowKey::kTagged : 0;
  if (headers.ipv4) {
    kinds |= FlowKey::kIpv4;
    fill_ipv4(&frame[headers.l3], key);
  } else if (headers.ipv6) {
    kinds |= FlowKey::kIpv6;
    fill_ipv6(&frame[headers.l3], key);
  }
  key.protocol = headers.protocol;
  if (headers.l4 != 0) {
    kinds |= headers.tcp() ? FlowKey::kTcp : FlowKey::kUdp;
    copy_bytes(key.src_port, &frame[headers.l4]);
    copy_bytes(key.dst_port, &frame[headers.l4 + std::size_t{2}]);
  }
  key.kinds = static_cast<std::uint8_t>(kinds);
  return key;
}

struct Steering::State {
  std::vector<std::unique_ptr<Group>> groups;  // by priority, then by first use
  std::array<PortRules, 256> ports;
  std::unordered_map<RuleId, Place> places;
  RuleId last_id = 0;

  RuleId unused_id() {
    do {
      ++last_id;
    } while (last_id == 0 || places.contains(last_id));
    return last_id;
  }

  Group& group_of(std::uint16_t priority, const Words& mask) {
    auto at = groups.begin();
    for (; at != groups.end() && (*at)->priority() <= priority; ++at) {
      if ((*at)->priority() == priority && (*at)->mask() == mask) return **at;
    }
    return **groups.insert(at, std::make_unique<Group>(priority, mask));
  }

  void remove(std::unordered_map<RuleId, Place>::iterator rule) {
    const auto [id, place] = *rule;
    places.erase(rule);
    if (place.group == nullptr) return erase(ports[place.port].of(place.kind), id);
    place.group->remove(place.key, id);
    if (!place.group->empty()) return;
    const Group* empty = place.group;
    std::erase_if(groups, [empty](const auto& group) { return group.get() == empty; });
  }

  template <class Condition>
  void remove_if(Condition condition) {
    for (auto rule = places.begin(); rule != places.end();) {
      const auto next = std::next(rule);
      if (condition(rule->second)) remove(rule);
      rule = next;
    }
  }

  /// @return whether a NORMAL rule trapped the frame
  bool take_normal(const Words& key, Steered& out) const {
    for (const auto& group : groups) {
      const Entries* const hit = group->find(key);
      if (hit != nullptr && take(*hit, out)) return true;
    }
    return false;
  }
};

Steering::Steering() : state_(std::make_unique<State>()) {}
Steering::~Steering() = default;

RuleId Steering::add(const Rule& rule) {
  const RuleId id = state_->unused_id();
  const bool normal = rule.kind == RuleKind::normal;
  const Delivery delivery{rule.queue, rule.tagged ? rule.tag : 0, rule.tagged};
  const Entry entry{id, delivery, rule.drop, normal && rule.dont_trap};
  Place place{rule.queue, rule.kind, rule.port, nullptr, {}};
  if (normal) {
    FlowKey value = rule.value;
    FlowKey mask = rule.mask;
    value.port = rule.port;
    mask.port = 0xff;
    place.key = words_of(value);
    place.group = &state_->group_of(rule.priority, words_of(mask));
    place.group->add(place.key, entry);
  } else {
    state_->ports[rule.port].of(rule.kind).push_back(entry);
  }
  state_->places.emplace(id, place);
  return id;
}

bool Steering::remove(OwnerId owner, RuleId id) {
  const auto rule = state_->places.find(id);
  if (rule == state_->places.end() || rule->second.queue.owner != owner) return false;
  state_->remove(rule);
  return true;
}

void Steering::remove_owner(OwnerId owner) {
  state_->remove_if([owner](const Place& place) { return place.queue.owner == owner; });
}

void Steering::remove_queue(QueueRef queue) {
  state_->remove_if([queue](const Place& place) { return place.queue == queue; });
}

std::size_t Steering::size() const noexcept { return state_->places.size(); }

void Steering::classify(std::uint8_t port, Bytes frame, const Headers& headers, Steered& out) const {
  out.to.clear();
  out.kernel = false;
  out.dropped = false;
  const PortRules& defaults = state_->ports[port];
  out.trapped = state_->take_normal(words_of(flow_key(port, frame, headers)), out);
  if (!out.trapped) {
    const bool multicast = frame.size() >= 14 && (frame[0] & 1) != 0;
    const bool taken = (multicast && take(defaults.mc_default, out)) || take(defaults.all_default, out);
    out.kernel = !taken;
  }
  copy_to(defaults.sniffers, out);
}

void Steering::sniff(std::uint8_t port, Steered& out) const { copy_to(state_->ports[port].sniffers, out); }

}  // namespace softnic
