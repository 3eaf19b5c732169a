#include "vswitch/daemon/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "vswitch/base/error.h"

namespace vswitch {
namespace {

constexpr mode_t kReadableByAll = 0644;

/// The first word in `fd`: the process that wrote it.
std::string owner_in(int fd) {
  std::array<char, 32> text{};
  const ssize_t got = ::pread(fd, text.data(), text.size() - 1, 0);
  const std::string_view whole(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  const std::string_view word = whole.substr(0, whole.find('\n'));
  return word.empty() ? "unknown process" : "process " + std::string(word);
}

void write_pid(int fd, const std::string& path) {
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    throw_errno("write", path);
  }
}

/// Whether `path` still names the open file: its last owner may have removed it between our open() and flock().
bool still_named(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

LockFile::LockFile(std::string path) : path_(std::move(path)) {
  do {
    fd_ = Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kReadableByAll));
    if (!fd_.valid()) throw_errno("open lock file", path_, "choose another place with --lock or --control");
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) throw_errno("lock", path_);
      throw Error(
          0, "lock", path_,
          "held by " + owner_in(fd_.get()) + ", another vswitchd: stop it, or give this one its own --control socket");
    }
  } while (!still_named(fd_.get(), path_));
  write_pid(fd_.get(), path_);
}

LockFile::~LockFile() { ::unlink(path_.c_str()); }

PidFile::PidFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  const Fd fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kReadableByAll));
  if (!fd.valid()) throw_errno("open pid file", path_, "choose another place with --pid-file");
  write_pid(fd.get(), path_);
}

PidFile::~PidFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

RuntimeDirectory::RuntimeDirectory(const std::filesystem::path& path) {
  if (path.empty()) return;
  std::error_code error;
  const bool made = std::filesystem::create_directories(path, error);
  if (error) throw Error(error.value(), "create directory", path.native(), "choose another place with --control");
  if (made) created_ = path;
}

RuntimeDirectory::~RuntimeDirectory() {
  if (!created_.empty()) ::rmdir(created_.c_str());
}

}  // namespace vswitch
