#include "vswitch/core/egress.h"

#include <span>

#include "vswitch/net/offload_check.h"

namespace vswitch {

Egress::Egress(std::size_t worker) : worker_(worker) { index_.fill(kNoSlot); }

Egress::Slot& Egress::open_slot(PortId port) noexcept {
  if (used_ == kSlots) flush();
  Queue* queue = table_->queue(port, worker_);
  Slot& slot = slots_[used_];
  slot.queue = queue;
  slot.port = port;
  slot.offloads = queue->offloads();
  slot.flags_taken = slot.offloads.checksum ? Offload::kDataValid : 0;
  slot.merges = table_->port(port).gro && slot.offloads.checksum && (slot.offloads.tso4 || slot.offloads.tso6);
  slot.max_frame = table_->port(port).max_frame;
  slot.count = 0;
  slot.bytes = 0;
  index_[port] = static_cast<std::uint8_t>(used_++);
  return slot;
}

void Egress::stage_many(Verdict verdict, const Frame& frame) noexcept {
  if (verdict.port != kNoPort) stage_to(verdict.port, frame);
  for (const PortId port : table_->group(verdict.group)) {
    if (port != verdict.exclude) stage_to(port, frame);
  }
  for (const PortId port : table_->group(verdict.sources)) stage_to(port, frame);
}

/// A frame that is unfinished, or longer than the destination's MTU allows unless it will be cut.
void Egress::stage_unusual(PortId port, const Frame& frame) noexcept {
  const Slot& slot = slot_of(port);
  const std::span<const std::byte> header(frame.header, frame.header_bytes);
  if (wire_length(frame.offload, header, frame.length) > slot.max_frame) {
    refuse(port, Drop::too_long, 1);
  } else if (Adapter::needed(frame, slot.offloads)) {
    stage_adapted(port, frame);
  } else {
    put(slot_of(port), frame);
  }
}

/// Finishes the frame in software. Its pieces live in the adapter until all that is staged was sent.
void Egress::stage_adapted(PortId port, const Frame& frame) noexcept {
  std::array<const Frame*, kMaxSegments> pieces;
  const OffloadCaps caps = slot_of(port).offloads;
  std::size_t count = adapter_.adapt(frame, caps, pieces);
  if (count == 0 && adapter_.exhausted()) {
    flush();  // makes the adapter's memory free again
    count = adapter_.adapt(frame, caps, pieces);
  }
  if (count == 0) {
    refuse(port, Drop::offload_unsupported, 1);
    return;
  }
  PortCounters& counters = table_->queue(port, worker_)->counters();
  if (frame.offload.is_gso()) {
    counters.sw_gso.add(1);
  } else if (frame.offload.needs_checksum()) {
    counters.sw_checksum.add(1);
  }
  Slot& slot = slot_of(port);
  slot.merges = false;  // what had to be cut is not to be put together again
  for (std::size_t i = 0; i < count; ++i) put(slot, *pieces[i]);
}

void Egress::refuse(PortId port, Drop reason, std::size_t frames) noexcept {
  table_->queue(port, worker_)->counters().drop(reason, frames);
  refused_ += frames;
}

void Egress::coalesce(Slot& slot) noexcept {
  const std::span<const Frame*> frames(slot.frames.data(), slot.count);
  const std::size_t left = coalescer_.merge(frames, slot.offloads);
  if (left == slot.count) return;
  slot.queue->counters().gro_merged.add(slot.count - left);
  slot.count = static_cast<std::uint32_t>(left);
  slot.bytes = 0;
  for (const Frame* frame : frames.first(left)) slot.bytes += frame->length;
}

void Egress::send(Slot& slot) noexcept {
  if (slot.merges && slot.count > 1) coalesce(slot);
  const std::size_t taken = slot.queue->transmit(std::span(slot.frames.data(), slot.count));
  PortCounters& counters = slot.queue->counters();
  if (taken < slot.count) [[unlikely]] {
    for (std::size_t i = taken; i < slot.count; ++i) slot.bytes -= slot.frames[i]->length;
    refuse(slot.port, slot.queue->refusal(), slot.count - taken);
  }
  counters.tx_frames.add(taken);
  counters.tx_bytes.add(slot.bytes);
  slot.count = 0;
  slot.bytes = 0;
}

void Egress::flush() noexcept {
  for (std::size_t i = 0; i < used_; ++i) {
    if (slots_[i].count != 0) send(slots_[i]);
    index_[slots_[i].port] = kNoSlot;
  }
  used_ = 0;
  last_port_ = kNoPort;
  adapter_.reset();
}

}  // namespace vswitch
