#include "tests/softnic/daemon/fault.h"

#include <rdma/ib_user_verbs.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

namespace softnic {
namespace {

constexpr std::uint32_t kEx = IB_USER_VERBS_CMD_FLAG_EXTENDED;

constexpr std::pair<std::string_view, std::uint32_t> kCommands[] = {
    {"get_context", IB_USER_VERBS_CMD_GET_CONTEXT},
    {"query_device", IB_USER_VERBS_CMD_QUERY_DEVICE},
    {"query_device_ex", kEx | IB_USER_VERBS_EX_CMD_QUERY_DEVICE},
    {"query_port", IB_USER_VERBS_CMD_QUERY_PORT},
    {"alloc_pd", IB_USER_VERBS_CMD_ALLOC_PD},
    {"reg_mr", IB_USER_VERBS_CMD_REG_MR},
    {"create_comp_channel", IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL},
    {"create_cq", IB_USER_VERBS_CMD_CREATE_CQ},
    {"create_cq_ex", kEx | IB_USER_VERBS_EX_CMD_CREATE_CQ},
    {"create_qp", IB_USER_VERBS_CMD_CREATE_QP},
    {"create_qp_ex", kEx | IB_USER_VERBS_EX_CMD_CREATE_QP},
    {"modify_qp", IB_USER_VERBS_CMD_MODIFY_QP},
    {"modify_qp_ex", kEx | IB_USER_VERBS_EX_CMD_MODIFY_QP},
    {"create_flow", kEx | IB_USER_VERBS_EX_CMD_CREATE_FLOW},
    {"create_wq", kEx | IB_USER_VERBS_EX_CMD_CREATE_WQ},
    {"create_rwq_ind_tbl", kEx | IB_USER_VERBS_EX_CMD_CREATE_RWQ_IND_TBL},
};

constexpr std::pair<std::string_view, int> kErrors[] = {
    {"ENOMEM", ENOMEM}, {"EINVAL", EINVAL}, {"EBUSY", EBUSY},           {"EPERM", EPERM},
    {"EIO", EIO},       {"EAGAIN", EAGAIN}, {"EOPNOTSUPP", EOPNOTSUPP}, {"ENODEV", ENODEV},
};

template <typename Table>
auto lookup(const Table& table, std::string_view word) {
  const auto found =
      std::find_if(std::begin(table), std::end(table), [&](const auto& entry) { return entry.first == word; });
  return found == std::end(table) ? std::nullopt : std::optional(found->second);
}

std::optional<std::uint32_t> number(const std::string& word) {
  std::uint32_t value = 0;
  const bool hex = word.rfind("0x", 0) == 0;
  const char* end = word.data() + word.size();
  const auto [at, error] = std::from_chars(word.data() + (hex ? 2 : 0), end, value, hex ? 16 : 10);
  return error == std::errc{} && at == end ? std::optional(value) : std::nullopt;
}

std::string fail(Board& board, const std::vector<std::string>& words) {
  if (words.size() != 3 && words.size() != 4) return "expected fail COMMAND ERRNO [TIMES]";
  const auto command = lookup(kCommands, words[1]);
  const auto error = lookup(kErrors, words[2]);
  const auto times = words.size() == 4 ? number(words[3]) : 1;
  if (!command) return "'" + words[1] + "' is no set-up command that can fail";
  if (!error) return "'" + words[2] + "' is no known error";
  if (!times) return "'" + words[3] + "' is no number";
  board.fail_errno = static_cast<std::uint32_t>(*error);
  board.fail_times = *times;
  board.fail_command.store(*command + 1, std::memory_order_release);
  return {};
}

std::string break_queue(Board& board, const std::vector<std::string>& words) {
  if (words.size() != 2 && words.size() != 3) return "expected break QUEUE [SYNDROME]";
  const auto queue = number(words[1]);
  const auto syndrome = words.size() == 3 ? number(words[2]) : 0;
  if (!queue || !syndrome || *syndrome > 0xff) return "queue and syndrome are numbers";
  board.break_syndrome = *syndrome;
  board.break_queue.store(*queue, std::memory_order_release);
  return {};
}

}  // namespace

std::string inject(Board& board, const std::vector<std::string>& words) {
  if (words.empty()) return "which one?";
  if (words[0] == "fail") return fail(board, words);
  if (words[0] == "break") return break_queue(board, words);
  if (words[0] == "lose-interrupts") {
    const auto count = words.size() == 2 ? number(words[1]) : std::nullopt;
    if (!count) return "expected lose-interrupts COUNT";
    board.lose_interrupts = *count;
    return {};
  }
  if (words[0] == "fatal" && words.size() == 1) {
    ++board.fatal;
    board.count(Counter::faults);
    return {};
  }
  return "'" + words[0] + "' is none that is known";
}

}  // namespace softnic
