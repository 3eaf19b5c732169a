#pragma once

#include <cstdint>
#include <mutex>

namespace softnic {

/// The fd of a completion channel, or of a context's async events: fixed-size records, each begins with the user handle
/// of what it is about.
class EventPipe {
 public:
  explicit EventPipe(std::size_t record_bytes);
  ~EventPipe();
  EventPipe(const EventPipe&) = delete;
  EventPipe& operator=(const EventPipe&) = delete;

  /// The end that the application reads and closes.
  [[nodiscard]] int read_fd() const noexcept { return read_fd_; }
  [[nodiscard]] int write_fd() const noexcept { return write_fd_; }
  /// Removes the records about `element` that the application has not read. @return how many.
  std::uint32_t forget(std::uint64_t element);

 private:
  std::size_t record_bytes_;
  int read_fd_ = -1;      // given to the application
  int own_read_fd_ = -1;  // the same end, for forget()
  int write_fd_ = -1;
};

}  // namespace softnic
