#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/bench/tcp_pattern.h"
#include "vswitch/base/clock.h"

// The two directions of a TCP connection, without any packet: what is to be sent, what has arrived. Both count in
// offsets in the stream: byte 0 is the first one of data, and the FIN is one more behind the last one.

namespace vswitch::bench {

/// What this end sends: the pattern. Keeps at most so much in flight as it was told, whatever the peer would take
/// (there is no congestion to find: the path is one switch), and goes back to the first byte that was not acknowledged
/// after three duplicate acknowledgments, or when none comes in time.
class Sender {
 public:
  struct Piece {
    std::uint64_t offset = 0;
    std::span<const std::byte> payload;
    bool fin = false;
  };

  explicit Sender(std::uint64_t most_in_flight) noexcept : most_in_flight_(most_in_flight) {}

  /// There are `bytes` to be sent in all, and then a FIN. Without this there is nothing.
  void end_at(std::uint64_t bytes) noexcept {
    end_ = bytes;
    closed_ = true;
  }
  /// Nothing new.
  void end_here() noexcept { end_at(std::min(end_, highest_)); }

  /// The peer has everything below `offset`, and takes `window` bytes more.
  /// @param pure no payload came with it, nor anything else to be acknowledged
  void acknowledge(std::uint64_t offset, std::uint64_t window, bool pure, Nanoseconds now) noexcept {
    if (offset > highest_ || offset < acknowledged_) return;  // what was never sent; old
    if (offset > acknowledged_) {
      acknowledged_ = offset;
      next_ = std::max(next_, offset);
      duplicates_ = 0;
      timeout_ = kTimeout;
      deadline_ = now + timeout_;
    } else if (pure && offset == acknowledged_ && window == window_ && in_flight() != 0) {
      // Not while it is still what was sent twice that comes back (RFC 6582 section 3.2): everything is under way
      // again.
      if (++duplicates_ == kDuplicates && acknowledged_ >= recovered_at_) go_back(now);
    }
    window_ = window;
  }

  /// Goes back when it is time.
  void look_at_clock(Nanoseconds now) noexcept {
    if (now < deadline_) return;
    if (next_ == last() && in_flight() == 0) return;
    if (deadline_ != 0) {
      if (in_flight() == 0) window_ = std::max<std::uint64_t>(window_, 1);  // shut: knock
      timeout_ = std::min(timeout_ * 2, kMostTimeout);
      ++timeouts_;
      go_back(now);
    }
    deadline_ = now + timeout_;
  }

  /// Whether there is something to be sent now; it counts as sent once sent() says so.
  /// @param most payload bytes, whole segments of `mss`
  [[nodiscard]] bool next(std::uint64_t from, std::size_t most, std::size_t mss, const Pattern& pattern,
                          Piece& piece) const noexcept {
    const std::uint64_t usable = std::min(most_in_flight_, window_);
    const std::uint64_t limit = std::min(acknowledged_ + usable, end_);
    piece = {from, {}, false};
    if (from >= last()) return false;
    if (from == end_) return piece.fin = true;
    // Not so long that one segment is all that is under way.
    const std::size_t size = std::clamp<std::size_t>(usable / 4 / mss * mss, mss, most);
    const std::size_t left = limit > from ? limit - from : 0;
    // What little the window leaves waits for more, unless it is the end.
    if (left < size && limit != end_ && from != acknowledged_) return false;
    if (left == 0) return false;
    piece.payload = pattern.at(from, std::min(left, size));
    return true;
  }
  [[nodiscard]] std::uint64_t next_offset() const noexcept { return next_; }
  [[nodiscard]] std::uint64_t highest_offset() const noexcept { return highest_; }
  void sent(const Piece& piece, Nanoseconds now) noexcept {
    if (in_flight() == 0) deadline_ = now + timeout_;
    if (piece.offset < highest_) again_ += std::min<std::uint64_t>(highest_ - piece.offset, piece.payload.size());
    next_ = piece.offset + piece.payload.size() + (piece.fin ? 1 : 0);
    highest_ = std::max(highest_, next_);
  }

  [[nodiscard]] bool done() const noexcept { return closed_ && acknowledged_ == last(); }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return std::min(acknowledged_, end_); }
  [[nodiscard]] std::uint64_t bytes_again() const noexcept { return again_; }
  [[nodiscard]] std::uint64_t timeouts() const noexcept { return timeouts_; }

 private:
  static constexpr Nanoseconds kTimeout = 10 * kMillisecond;
  static constexpr Nanoseconds kMostTimeout = 200 * kMillisecond;
  static constexpr unsigned kDuplicates = 3;

  /// Where everything ends.
  [[nodiscard]] std::uint64_t last() const noexcept { return end_ + (closed_ ? 1 : 0); }
  [[nodiscard]] std::uint64_t in_flight() const noexcept { return next_ - acknowledged_; }
  void go_back(Nanoseconds now) noexcept {
    recovered_at_ = highest_ + 1;  // acknowledging all that was sent does not say that nothing of it comes back
    next_ = acknowledged_;
    duplicates_ = 0;
    deadline_ = now + timeout_;
  }

  std::uint64_t most_in_flight_;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t next_ = 0;
  std::uint64_t highest_ = 0;  ///< end of what was ever sent
  std::uint64_t end_ = 0;      ///< of data
  bool closed_ = false;        ///< a FIN follows
  std::uint64_t window_ = 0;
  std::uint64_t recovered_at_ = 0;
  unsigned duplicates_ = 0;
  Nanoseconds timeout_ = kTimeout;
  Nanoseconds deadline_ = 0;
  std::uint64_t again_ = 0;
  std::uint64_t timeouts_ = 0;
};

/// What this end receives. Every byte is compared with the pattern when it arrives, in order or not, and then only
/// remembered as having been there.
class Receiver {
 public:
  /// Bytes behind a gap: from `begin` to before `end`.
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  static constexpr std::size_t kMostRanges = 32;  ///< more gaps than that: what comes behind them is forgotten

  /// A segment that begins at `offset`; what was there before may be in front of it.
  void take(std::int64_t offset, std::span<const std::byte> payload, bool fin, const Pattern& pattern) noexcept {
    if (payload.empty() && !fin) return;
    const std::int64_t old = static_cast<std::int64_t>(received_) - offset;
    if (old > static_cast<std::int64_t>(payload.size())) {  // the sender repeats itself
      ++answers_due_;
      return;
    }
    const bool in_order = old >= 0;
    if (in_order) payload = payload.subspan(static_cast<std::size_t>(old));
    const std::uint64_t begin = in_order ? received_ : static_cast<std::uint64_t>(offset);
    const Range range{begin, begin + payload.size()};
    if (!pattern.matches(range.begin, payload)) ++wrong_;
    if (fin) {
      end_ = range.end;
      ended_ = true;
    }
    if (in_order) {
      received_ = range.end;
      close_gaps();
      answers_due_ = std::max(answers_due_, 1U);
    } else {  // each is answered: three answers tell the sender what is missing
      ++out_of_order_;
      ++answers_due_;
      remember(range);
    }
  }

  /// How many acknowledgments to send, all alike; there are none due then.
  [[nodiscard]] unsigned take_answers() noexcept {
    const unsigned due = answers_due_;
    answers_due_ = 0;
    return due;
  }
  /// What to acknowledge.
  [[nodiscard]] std::uint64_t next_offset() const noexcept { return received_ + (finished() ? 1 : 0); }
  /// What arrived behind the first gap.
  [[nodiscard]] std::span<const Range> ranges() const noexcept { return std::span(ranges_).first(count_); }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return received_; }
  [[nodiscard]] bool finished() const noexcept { return ended_ && received_ == end_; }
  [[nodiscard]] std::uint64_t wrong() const noexcept { return wrong_; }
  [[nodiscard]] std::uint64_t out_of_order() const noexcept { return out_of_order_; }

 private:
  void remember(Range range) noexcept {
    for (std::size_t i = 0; i < count_;) {  // takes in what it touches
      if (ranges_[i].begin > range.end || ranges_[i].end < range.begin) {
        ++i;
        continue;
      }
      range = {std::min(range.begin, ranges_[i].begin), std::max(range.end, ranges_[i].end)};
      ranges_[i] = ranges_[--count_];
    }
    if (count_ < kMostRanges) ranges_[count_++] = range;
  }
  void close_gaps() noexcept {
    for (std::size_t i = 0; i < count_;) {
      if (ranges_[i].begin > received_) {
        ++i;
        continue;
      }
      received_ = std::max(received_, ranges_[i].end);
      ranges_[i] = ranges_[--count_];
      i = 0;  // another one may follow now
    }
  }

  std::uint64_t received_ = 0;  ///< in order
  std::array<Range, kMostRanges> ranges_{};
  std::size_t count_ = 0;
  std::uint64_t end_ = 0;  ///< of the stream, if `ended_`
  bool ended_ = false;
  unsigned answers_due_ = 0;
  std::uint64_t wrong_ = 0;
  std::uint64_t out_of_order_ = 0;
};

}  // namespace vswitch::bench
