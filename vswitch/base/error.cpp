#include "vswitch/base/error.h"

#include <cerrno>
#include <system_error>

namespace vswitch {
namespace {

std::string compose(int err, std::string_view operation, std::string_view subject, std::string_view hint) {
  std::string text(operation);
  if (!subject.empty()) text.append(" ").append(subject);
  if (err != 0) text.append(": ").append(std::generic_category().message(err));
  if (!hint.empty()) text.append("; ").append(hint);
  return text;
}

}  // namespace

Error::Error(int err, std::string_view operation, std::string_view subject, std::string_view hint)
    : std::runtime_error(compose(err, operation, subject, hint)), err_(err) {}

void throw_errno(std::string_view operation, std::string_view subject, std::string_view hint) {
  throw Error(errno, operation, subject, hint);
}

}  // namespace vswitch
