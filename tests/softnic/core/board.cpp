#include "tests/softnic/core/board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace softnic {

const std::array<std::string_view, kCounters> kCounterNames = {"tx_frames",
                                                               "rx_frames",
                                                               "wire_rx",
                                                               "wire_tx",
                                                               "kernel_rx",
                                                               "kernel_tx",
                                                               "loopback",
                                                               "delivered",
                                                               "copies",
                                                               "drop_rule",
                                                               "drop_no_buffer",
                                                               "drop_length",
                                                               "drop_protection",
                                                               "drop_queue_state",
                                                               "drop_cq_overrun",
                                                               "drop_channel_full",
                                                               "drop_wire_full",
                                                               "drop_wire_down",
                                                               "drop_kernel_full",
                                                               "drop_no_kernel",
                                                               "lost_wire",
                                                               "lost_kernel",
                                                               "doorbells",
                                                               "interrupts",
                                                               "interrupts_lost",
                                                               "dma_read_bytes",
                                                               "dma_read_shared_bytes",
                                                               "dma_write_bytes",
                                                               "dma_write_shared_bytes",
                                                               "tso_requests",
                                                               "error_completions",
                                                               "faults",
                                                               "violations"};

BoardFile::BoardFile(const std::string& path, bool create) {
  const auto fail = [&path](const char* step) {
    throw std::system_error(errno, std::generic_category(), path + ": " + step);
  };
  if (create) ::unlink(path.c_str());  // who still maps an old one keeps it
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0666);
  if (fd < 0) fail("open");
  if (create && ::ftruncate(fd, sizeof(Board)) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    fail("set its size");
  }
  void* mapped = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int error = errno;
  ::close(fd);
  errno = error;
  if (mapped == MAP_FAILED) fail("map");
  board_ = static_cast<Board*>(mapped);
  if (create) board_->version = Board::kVersion;
  if (board_->version != Board::kVersion) {
    ::munmap(mapped, sizeof(Board));
    errno = EPROTO;
    fail("made by another version");
  }
}

BoardFile::~BoardFile() { ::munmap(board_, sizeof(Board)); }

}  // namespace softnic
