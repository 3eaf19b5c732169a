// Every kind of port sends every kind of unfinished frame to every other, through a worker: what arrives says, byte by
// byte, what the kernel's own path makes of the same frame, and is unfinished exactly as far as the receiver is ready
// for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/ports/kinds.h"
#include "tests/ports/offload_cases.h"
#include "tests/ports/pair_switch.h"
#include "tests/ports/test_frames.h"

namespace vswitch::test {
namespace {

/// How a frame travels: in how many pieces, and what remains to be done to each of them.
struct Shape {
  std::size_t frames;
  Offload offload;
};

/// Whether somebody with `caps` takes a frame that is to be cut. Not the switch's own opinion: this is the test.
bool takes_whole(OffloadCaps caps, const Offload& offload) {
  if (!caps.checksum || ((offload.gso_type & Offload::kGsoEcn) != 0 && !caps.ecn)) return false;
  switch (offload.gso_kind()) {
    case Offload::kGsoTcp4:
      return caps.tso4;
    case Offload::kGsoTcp6:
      return caps.tso6;
    default:
      return caps.uso;
  }
}

/// What of `shape` is left when it passes somebody with `caps`: what that one is ready for stays as it is, a frame that
/// must be cut leaves the checksums of its segments if it may, and nobody does more than he must.
Shape through(Shape shape, OffloadCaps caps, std::size_t segments) {
  Offload& offload = shape.offload;
  if (offload.is_gso() && !takes_whole(caps, offload)) {
    shape.frames = segments;
    offload.gso_type = Offload::kGsoNone;
    offload.gso_size = 0;
  }
  if (offload.needs_checksum() && !caps.checksum) offload = {};
  return shape;
}

/// Where two lists of frames differ, in words; "" if they do not.
std::string difference(const std::vector<KernelPath::Bytes>& expected, const std::vector<KernelPath::Bytes>& got) {
  std::ostringstream text;
  if (expected.size() != got.size()) text << got.size() << " frames instead of " << expected.size() << "; ";
  for (std::size_t i = 0; i < std::min(expected.size(), got.size()); ++i) {
    if (expected[i] == got[i]) continue;
    const auto [ours, theirs] = std::mismatch(got[i].begin(), got[i].end(), expected[i].begin(), expected[i].end());
    text << "frame " << i << " of " << got[i].size() << " bytes instead of " << expected[i].size()
         << ", different from byte " << ours - got[i].begin();
    if (ours != got[i].end() && theirs != expected[i].end()) {
      text << std::hex << ": 0x" << std::to_integer<int>(*ours) << " instead of 0x" << std::to_integer<int>(*theirs);
    }
    break;
  }
  return text.str();
}

/// Tags where the kernel's path has them: inside the bytes.
std::vector<TestFrame> canonical(std::vector<TestFrame> frames) {
  for (TestFrame& frame : frames) frame = test::canonical(std::move(frame));
  return frames;
}

/// What all pairs share: making it costs more than using it.
class Lab {
 public:
  Lab() : kernel_(kFrom), cases_(offload_cases(kernel_)) {
    for (const OffloadKind& kind : offload_kinds()) {
      Ends& ends = ends_[kind.kind.name];
      ends.from = &plug(kind);
      ends.to = kind.is_uplink ? ends.from : &plug(kind);  // a kind also sends to its like
    }
  }

  [[nodiscard]] KernelPath& kernel() { return kernel_; }
  [[nodiscard]] const std::vector<OffloadCase>& cases() const { return cases_; }
  PairSwitch& join(const OffloadKind& from, const OffloadKind& to, bool gro) {
    switch_.join(*ends_.at(from.kind.name).from, *ends_.at(to.kind.name).to, gro);
    return switch_;
  }
  [[nodiscard]] OffloadCaps offered(const OffloadKind& kind) const {
    return ends_.at(kind.kind.name).to->port->queue(0).offloads();
  }
  void note(const OffloadKind& from, const OffloadKind& to, std::size_t passed) {
    passed_[{from.kind.name, to.kind.name}] = passed;
  }
  /// Rows send, columns receive.
  void print() const {
    constexpr int kWidth = 12;
    std::cout << "cases that passed, of " << cases_.size() << " (from: rows, to: columns)\n" << std::setw(kWidth) << "";
    for (const OffloadKind& to : offload_kinds()) std::cout << std::setw(kWidth) << to.kind.name;
    for (const OffloadKind& from : offload_kinds()) {
      std::cout << '\n' << std::left << std::setw(kWidth) << from.kind.name << std::right;
      for (const OffloadKind& to : offload_kinds()) {
        const auto cell = passed_.find({from.kind.name, to.kind.name});
        std::cout << std::setw(kWidth) << (cell == passed_.end() ? "-" : std::to_string(cell->second));
      }
    }
    std::cout << '\n';
  }

 private:
  struct Ends {
    PluggedPort* from = nullptr;
    PluggedPort* to = nullptr;
  };
  PluggedPort& plug(const OffloadKind& kind) { return switch_.plug(kind.kind.make(), kind.is_uplink); }

  KernelPath kernel_;
  std::vector<OffloadCase> cases_;
  PairSwitch switch_;
  std::map<std::string, Ends> ends_;
  std::map<std::pair<std::string, std::string>, std::size_t> passed_;
};

struct Pair {
  OffloadKind from;
  OffloadKind to;
};
void PrintTo(const Pair& pair, std::ostream* out) { *out << pair.from.kind.name << " to " << pair.to.kind.name; }

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const OffloadKind& from : offload_kinds()) {
    for (const OffloadKind& to : offload_kinds()) {
      if (!from.is_uplink || !to.is_uplink) all.push_back({from, to});
    }
  }
  return all;
}

class OffloadMatrix : public testing::TestWithParam<Pair> {
 protected:
  static void SetUpTestSuite() { lab_ = std::make_unique<Lab>(); }
  static void TearDownTestSuite() {
    if (lab_) lab_->print();
    lab_.reset();
  }

  /// What is wrong with how frames arrived; "" if nothing is.
  static std::string judge(const Shape& shape, const std::vector<TestFrame>& arrived) {
    std::ostringstream wrong;
    if (arrived.size() != shape.frames) wrong << arrived.size() << " frames instead of " << shape.frames << "; ";
    for (const TestFrame& frame : arrived) {
      Offload offload = frame.offload;
      const auto& [from, to] = GetParam();
      if (offload.flags == Offload::kDataValid && from.vouches && to.takes.checksum) offload.flags = 0;
      if (offload == shape.offload) continue;
      wrong << "one is " << testing::PrintToString(frame) << " instead of "
            << testing::PrintToString(TestFrame{frame.bytes, 0, shape.offload}) << "; ";
    }
    return wrong.str();
  }

  /// What the receiver makes of what arrived: the kernel finishes it if the receiver has said that somebody will.
  static std::vector<KernelPath::Bytes> finish(const std::vector<TestFrame>& arrived) {
    std::vector<KernelPath::Bytes> bytes;
    for (const TestFrame& frame : arrived) {
      if (GetParam().to.takes == OffloadCaps{})
        bytes.push_back(frame.bytes);
      else
        lab_->kernel().put(frame.bytes, frame.offload);
    }
    return GetParam().to.takes == OffloadCaps{} ? bytes : lab_->kernel().take();
  }

  static inline std::unique_ptr<Lab> lab_;
};

TEST_P(OffloadMatrix, ArrivesAsTheKernelWouldSendIt) {
  const auto& [from, to] = GetParam();
  ASSERT_EQ(lab_->offered(to), to.takes) << "the port does not offer what its kind is known for";
  PairSwitch& joined = lab_->join(from, to, false);
  std::size_t passed = 0;
  for (const OffloadCase& sent : lab_->cases()) {
    SCOPED_TRACE(sent.name);
    const std::size_t segments = sent.finished.size();
    Shape shape{1, sent.frame.offload};
    if (!shape.offload.needs_checksum()) shape.offload = {};
    shape = through(through(shape, from.gives, segments), to.takes, segments);
    if (to.behind_nic) shape = through(shape, {}, segments);
    const auto arrived = canonical(joined.forward({&sent.frame, 1}, shape.frames));
    const std::string wrong = judge(shape, arrived) + difference(sent.finished, finish(arrived));
    EXPECT_EQ(wrong, "");
    passed += wrong.empty() ? 1 : 0;
  }
  EXPECT_TRUE(joined.leftovers(20).empty()) << "frames came that nobody sent";
  lab_->note(from, to, passed);
}

// The way back: what the kernel cut may be merged for a tenant that takes it, and must be the same when it is cut
// again.
TEST_P(OffloadMatrix, SegmentsSayTheSameMergedOrNot) {
  const auto& [from, to] = GetParam();
  PairSwitch& joined = lab_->join(from, to, true);
  for (const OffloadCase& cut : lab_->cases()) {
    if (!cut.frame.offload.is_gso()) continue;
    SCOPED_TRACE(cut.name);
    Offload merged = cut.frame.offload;
    merged.gso_type = merged.gso_kind();
    const bool merges = !to.is_uplink && merged.gso_type != Offload::kGsoUdpL4 && takes_whole(to.takes, merged);
    std::vector<TestFrame> segments;
    for (const KernelPath::Bytes& bytes : cut.finished) segments.push_back({bytes, 0, {}});
    std::vector<TestFrame> arrived = joined.forward(segments, merges ? 1 : segments.size());
    for (auto more = joined.leftovers(1); !more.empty(); more = joined.leftovers(1)) {
      arrived.insert(arrived.end(), more.begin(), more.end());
    }
    if (!merges) {
      EXPECT_EQ(arrived.size(), segments.size());
    } else if (!from.behind_nic) {  // which may hand them over one by one
      EXPECT_LT(arrived.size(), segments.size());
    }
    EXPECT_EQ(difference(cut.finished, finish(canonical(std::move(arrived)))), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Pairs, OffloadMatrix, testing::ValuesIn(pairs()), [](const auto& pair) {
  return std::string(pair.param.from.kind.name) + "_to_" + pair.param.to.kind.name;
});

}  // namespace
}  // namespace vswitch::test
