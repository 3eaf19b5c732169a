#include <rdma/ib_user_verbs.h>
#include <rdma/mlx5-abi.h>

#include <bit>
#include <cerrno>

#include "tests/softnic/kernel/session.h"

namespace softnic {
namespace {

constexpr std::uint32_t kTimestamp = 1, kIgnoreOverrun = 2;  // enum ib_uverbs_ex_create_cq_flags

bool sound(std::uint64_t buffer, std::uint32_t entry_bytes) {
  return buffer != 0 && (entry_bytes == 64 || entry_bytes == 128);
}

}  // namespace

template <typename Core, typename Response>
int Session::make_cq(Command& command, const Core& core, Response& response) {
  mlx5_ib_create_cq driver{};
  command.read_driver(driver);
  if (core.cqe == 0 || core.cqe > board_.max_cqe || core.comp_vector >= 2) return EINVAL;
  if (!sound(driver.buf_addr, driver.cqe_size) || driver.db_addr == 0 || driver.cqe_comp_en != 0) return EINVAL;
  CompletionQueue::Events events{-1, core.user_handle};
  if (core.comp_channel >= 0) {
    const auto channel = channels_.find(core.comp_channel);
    if (channel == channels_.end()) return EINVAL;
    events.channel = channel->second->write_fd();
  }
  CompletionQueue::Layout layout;
  layout.buffer = reinterpret_cast<std::uint8_t*>(driver.buf_addr);
  layout.entries = std::bit_ceil(core.cqe + 1);
  layout.entry_bytes = driver.cqe_size;
  layout.record = reinterpret_cast<std::uint32_t*>(driver.db_addr);
  const std::uint32_t number = next_handle_++;
  nic_.cqs[number] = std::make_unique<CompletionQueue>(number, layout, events, board_);
  response.cq_handle = number;
  response.cqe = layout.entries - 1;
  return 0;
}

int Session::create_cq(Command& command) {
  ib_uverbs_create_cq core{};
  ib_uverbs_create_cq_resp response{};
  if (!command.read(core)) return EINVAL;
  if (const int error = make_cq(command, core, response); error != 0) return error;
  command.respond(response);
  command.respond_driver(mlx5_ib_create_cq_resp{response.cq_handle, 0});
  return 0;
}

int Session::create_cq_ex(Command& command) {
  ib_uverbs_ex_create_cq core{};
  ib_uverbs_ex_create_cq_resp response{};
  if (!command.read(core) || core.comp_mask != 0) return EINVAL;
  if ((core.flags & ~(kTimestamp | kIgnoreOverrun)) != 0) return EOPNOTSUPP;
  if (const int error = make_cq(command, core, response.base); error != 0) return error;
  response.response_length = sizeof response;
  command.respond(response);
  command.respond_driver(mlx5_ib_create_cq_resp{response.base.cq_handle, 0});
  return 0;
}

// Moderation only delays interrupts; the model sends them at once, which it allows.
int Session::modify_cq(Command& command) {
  ib_uverbs_ex_modify_cq core{};
  if (!command.read(core) || nic_.cqs.count(core.cq_handle) == 0) return EINVAL;
  constexpr std::uint16_t kMaxPeriod = 0xfff;
  return core.attr.cq_period > kMaxPeriod ? EOPNOTSUPP : 0;
}

int Session::resize_cq(Command& command) {
  ib_uverbs_resize_cq core{};
  mlx5_ib_resize_cq driver{};
  if (!command.read(core)) return EINVAL;
  command.read_driver(driver);
  const auto found = nic_.cqs.find(core.cq_handle);
  if (found == nic_.cqs.end() || core.cqe == 0 || core.cqe > board_.max_cqe ||
      !sound(driver.buf_addr, driver.cqe_size)) {
    return EINVAL;
  }
  const std::uint32_t entries = std::bit_ceil(core.cqe + 1);
  found->second->resize(reinterpret_cast<std::uint8_t*>(driver.buf_addr), entries, driver.cqe_size);
  command.respond(ib_uverbs_resize_cq_resp{entries - 1, 0});
  return 0;
}

int Session::destroy_cq(Command& command) {
  ib_uverbs_destroy_cq core{};
  if (!command.read(core)) return EINVAL;
  const auto found = nic_.cqs.find(core.cq_handle);
  if (found == nic_.cqs.end()) return EINVAL;
  if (cq_users_[core.cq_handle] != 0) return EBUSY;
  const CompletionQueue::Events events = found->second->events();
  std::uint32_t read = found->second->events_sent();
  for (const auto& [fd, channel] : channels_) {
    if (channel->write_fd() == events.channel) read -= channel->forget(events.cookie);
  }
  command.respond(ib_uverbs_destroy_cq_resp{read, forget_async(events.cookie)});
  nic_.cqs.erase(found);
  cq_users_.erase(core.cq_handle);
  return 0;
}

}  // namespace softnic
