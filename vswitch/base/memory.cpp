#include "vswitch/base/memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <string>

#include "vswitch/base/error.h"

namespace vswitch {

Mapping Mapping::shared(int fd, std::size_t size, bool writable) {
  void* data = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) throw_errno("map", std::to_string(size) + " bytes of shared memory");
  return {static_cast<std::byte*>(data), size};
}

Mapping Mapping::anonymous(std::size_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw_errno("map", std::to_string(size) + " bytes of private memory");
  return {static_cast<std::byte*>(data), size};
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Fd make_sealed_memory(std::string_view name, std::size_t size) {
  const std::string label(name);
  Fd fd(::memfd_create(label.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) throw_errno("create shared memory", label);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) throw_errno("size shared memory", label);
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) throw_errno("seal shared memory", label);
  return fd;
}

void seal_against_writers(const Fd& fd, std::string_view name) {
  constexpr int kSealFutureWrite = 0x0010;  // F_SEAL_FUTURE_WRITE, Linux 5.1; <fcntl.h> of Debian 12 may hide it
  if (::fcntl(fd.get(), F_ADD_SEALS, kSealFutureWrite | F_SEAL_SEAL) != 0) throw_errno("seal shared memory", name);
}

}  // namespace vswitch
