#include "tests/softnic/kernel/command.h"

#include <rdma/ib_user_verbs.h>

namespace softnic {

std::optional<Command> Command::parse(std::span<const std::uint8_t> written) noexcept {
  ib_uverbs_cmd_hdr header{};
  if (written.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, written.data(), sizeof header);
  written = written.subspan(sizeof header);
  Command out;
  out.code_ = header.command & IB_USER_VERBS_CMD_COMMAND_MASK;
  out.extended_ = (header.command & IB_USER_VERBS_CMD_FLAG_EXTENDED) != 0;
  if (!out.extended_) {
    if (std::size_t{header.in_words} * 4 != written.size() + sizeof header) return std::nullopt;
    out.core_ = written;
    out.room_ = std::size_t{header.out_words} * 4;
    return out;
  }
  ib_uverbs_ex_cmd_hdr more{};
  if (written.size() < sizeof more) return std::nullopt;
  std::memcpy(&more, written.data(), sizeof more);
  written = written.subspan(sizeof more);
  const std::size_t core = std::size_t{header.in_words} * 8;
  const std::size_t driver = std::size_t{more.provider_in_words} * 8;
  if (core + driver != written.size() || more.cmd_hdr_reserved != 0) return std::nullopt;
  out.core_ = written.first(core);
  out.driver_ = written.subspan(core);
  out.response_ = more.response;
  out.room_ = std::size_t{header.out_words} * 8;
  out.driver_response_ = more.provider_out_words != 0 ? more.response + out.room_ : 0;
  out.driver_room_ = std::size_t{more.provider_out_words} * 8;
  return out;
}

}  // namespace softnic
