#include "tests/softnic/kernel/event_pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

namespace softnic {
namespace {

constexpr std::size_t kMostRecordBytes = 16;

}  // namespace

EventPipe::EventPipe(std::size_t record_bytes) : record_bytes_(record_bytes) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  read_fd_ = ends[0];
  write_fd_ = ends[1];
  // The writer never waits: an application that reads no events loses them, as it would fill the kernel's list.
  fcntl(write_fd_, F_SETFL, O_NONBLOCK);
  // Opened anew rather than duplicated: it must not wait where the application reads the same event, and the
  // application's end must.
  own_read_fd_ = ::open(("/proc/self/fd/" + std::to_string(read_fd_)).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

EventPipe::~EventPipe() {
  ::close(own_read_fd_);
  ::close(write_fd_);
}

std::uint32_t EventPipe::forget(std::uint64_t element) {
  std::uint32_t forgotten = 0;
  std::vector<std::array<std::uint8_t, kMostRecordBytes>> kept;
  pollfd unread{own_read_fd_, POLLIN, 0};
  while (poll(&unread, 1, 0) == 1 && (unread.revents & POLLIN) != 0) {
    std::array<std::uint8_t, kMostRecordBytes> record{};
    if (::read(own_read_fd_, record.data(), record_bytes_) != static_cast<ssize_t>(record_bytes_)) break;
    std::uint64_t about = 0;
    std::memcpy(&about, record.data(), sizeof about);
    if (about == element) {
      ++forgotten;
    } else {
      kept.push_back(record);
    }
  }
  for (const auto& record : kept) {
    if (::write(write_fd_, record.data(), record_bytes_) < 0) break;
  }
  return forgotten;
}

}  // namespace softnic
