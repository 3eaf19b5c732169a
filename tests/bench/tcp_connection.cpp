#include "tests/bench/tcp_connection.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "vswitch/base/error.h"

namespace vswitch::bench {
namespace {

constexpr int kWindowShift = 7;
constexpr std::uint16_t kDefaultMss = 536;  // RFC 9293 section 3.7.1
constexpr Nanoseconds kSynAgain = 100 * kMillisecond;
constexpr Nanoseconds kConnectPatience = 5 * kSecond;
constexpr unsigned kMostAnswers = kBurst;

/// From `from` to `to`, which are less than half of the number space apart.
std::int32_t distance(std::uint32_t from, std::uint32_t to) noexcept { return static_cast<std::int32_t>(to - from); }

/// The offset nearest to `near` that ends in these 32 bits.
std::int64_t offset_of(std::uint32_t low, std::uint64_t near) noexcept {
  return static_cast<std::int64_t>(near) + distance(static_cast<std::uint32_t>(near), low);
}

}  // namespace

Connection::Connection(RingHost& host, std::uint16_t port, std::uint32_t window, std::uint64_t most_in_flight)
    : host_(host),
      sender_(most_in_flight),
      window_(window),
      first_(static_cast<std::uint32_t>(monotonic_now() / 4000)) {  // RFC 9293 section 3.4.1: newer ones are larger
  host_.bind(port);
}

void Connection::connect(std::uint32_t address, std::uint16_t port) {
  peer_ = {host_.resolve(address), address, port};
  const Nanoseconds deadline = monotonic_now() + kConnectPatience;
  Nanoseconds again_at = 0;
  while (!open_) {
    const Nanoseconds now = monotonic_now();
    if (now > deadline) throw Error(ETIMEDOUT, "connect to", "the peer");
    if (now >= again_at) {
      send_syn(kSyn);
      again_at = now + kSynAgain;
    }
    const std::uint32_t count = host_.receive([&](const Segment& segment) {
      if (segment.from.port == port && take_syn(segment, kSyn | kAck)) open_ = true;
    });
    if (count == 0) wait();
  }
  const Outgoing answer{header(0), {}};
  (void)host_.send(peer_, mss_, {&answer, 1});
}

void Connection::accept(int patience_ms) {
  const Nanoseconds deadline = monotonic_now() + static_cast<Nanoseconds>(patience_ms) * kMillisecond;
  while (!open_) {
    if (monotonic_now() > deadline) throw Error(ETIMEDOUT, "wait for", "a peer");
    const std::uint32_t count = host_.receive([&](const Segment& segment) {
      if (take_syn(segment, kSyn)) {
        send_syn(kSyn | kAck);
      } else if (peer_.port == segment.from.port && segment.header.acknowledgment == first_) {
        open_ = true;
        take(segment, monotonic_now());
      }
    });
    if (count == 0) wait();
  }
}

bool Connection::take_syn(const Segment& segment, std::uint8_t flags) noexcept {
  const TcpHeader& header = segment.header;
  if ((header.flags & (kSyn | kAck | kRst)) != flags) return false;
  if ((flags & kAck) != 0 && header.acknowledgment != first_) return false;
  peer_ = segment.from;
  peer_first_ = header.sequence + 1;
  mss_ = std::min(host_.mss(), header.mss != 0 ? header.mss : kDefaultMss);
  const bool scaled = header.window_shift >= 0;  // only if both say so (RFC 7323 section 2.2)
  peer_shift_ = scaled ? std::min(header.window_shift, 14) : 0;
  shift_ = scaled ? kWindowShift : 0;
  sender_.acknowledge(0, header.window, false, monotonic_now());  // a SYN's window is not scaled
  return true;
}

void Connection::send_syn(std::uint8_t flags) noexcept {
  Outgoing syn;
  syn.header.sequence = first_ - 1;
  syn.header.acknowledgment = (flags & kAck) != 0 ? peer_first_ : 0;
  syn.header.flags = flags;
  syn.header.window = 0xffff;
  syn.header.mss = host_.mss();
  if ((flags & kAck) == 0 || shift_ != 0) syn.header.window_shift = kWindowShift;
  (void)host_.send(peer_, host_.mss(), {&syn, 1});
}

bool Connection::step(Nanoseconds now) {
  const std::uint32_t received = host_.receive([&](const Segment& segment) {
    if (segment.from.port == peer_.port && segment.from.address == peer_.address) take(segment, now);
  });
  if (reset_) throw Error(ECONNRESET, "talk to", "the peer");
  sender_.look_at_clock(now);
  const bool answered = send_answers();
  const bool sent = send_data(now);
  return received != 0 || answered || sent;
}

void Connection::take(const Segment& segment, Nanoseconds now) {
  const TcpHeader& header = segment.header;
  if ((header.flags & kRst) != 0) reset_ = true;
  if ((header.flags & kSyn) != 0) {  // its answer got lost
    const Outgoing answer{this->header(sender_.highest_offset()), {}};
    (void)host_.send(peer_, mss_, {&answer, 1});
  }
  if ((header.flags & (kSyn | kRst)) != 0) return;
  const bool fin = (header.flags & kFin) != 0;
  if ((header.flags & kAck) != 0) {
    const auto low = header.acknowledgment - first_;
    const std::int64_t offset = offset_of(low, sender_.next_offset());
    if (offset >= 0) {
      sender_.acknowledge(static_cast<std::uint64_t>(offset), std::uint64_t{header.window} << peer_shift_,
                          segment.payload.empty() && !fin, now);
    }
  }
  receiver_.take(offset_of(header.sequence - peer_first_, receiver_.next_offset()), segment.payload, fin, pattern_);
}

bool Connection::send_answers() noexcept {
  const unsigned due = std::min(receiver_.take_answers(), kMostAnswers);
  std::array<Outgoing, kMostAnswers> answers;
  std::fill_n(answers.begin(), due, Outgoing{header(sender_.highest_offset()), {}});
  (void)host_.send(peer_, mss_, std::span(answers).first(due));  // if there is no room, the next one says as much
  return due != 0;
}

bool Connection::send_data(Nanoseconds now) noexcept {
  std::array<Outgoing, kBurst> segments;
  std::array<Sender::Piece, kBurst> pieces;
  std::size_t count = 0;
  std::uint64_t from = sender_.next_offset();
  const std::size_t most = host_.most_payload(mss_);
  while (count < kBurst && sender_.next(from, most, mss_, pattern_, pieces[count])) {
    const Sender::Piece& piece = pieces[count];
    segments[count] = {header(from), piece.payload};
    if (piece.fin) segments[count].header.flags |= kFin;
    from += piece.payload.size() + (piece.fin ? 1 : 0);
    ++count;
  }
  if (count == 0) return false;
  const std::size_t sent = host_.send(peer_, mss_, std::span(segments).first(count));
  for (std::size_t i = 0; i < sent; ++i) sender_.sent(pieces[i], now);
  return sent != 0;
}

TcpHeader Connection::header(std::uint64_t offset) const noexcept {
  TcpHeader made;
  made.sequence = first_ + static_cast<std::uint32_t>(offset);
  made.acknowledgment = peer_first_ + static_cast<std::uint32_t>(receiver_.next_offset());
  made.flags = kAck;
  made.window = static_cast<std::uint16_t>(std::min<std::uint32_t>(window_ >> shift_, 0xffff));
  return made;
}

}  // namespace vswitch::bench
