#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace vswitch {

/// A failed set-up step: "operation subject: what the system said; what to do".
/// Setup and control thread only; caught in main, the control server and reconcile. Nothing a worker's step reaches
/// throws.
class Error : public std::runtime_error {
 public:
  /// @param err positive errno, or 0 when no system call stands behind the failure
  /// @param operation what was tried, e.g. "open"
  /// @param subject on what, e.g. "/dev/net/tun"
  /// @param hint what the user can do about it; may be empty
  Error(int err, std::string_view operation, std::string_view subject, std::string_view hint = {});

  /// Positive errno, or 0.
  [[nodiscard]] int code() const noexcept { return err_; }

 private:
  int err_;
};

/// Throws Error with the current errno.
[[noreturn]] void throw_errno(std::string_view operation, std::string_view subject, std::string_view hint = {});

}  // namespace vswitch
