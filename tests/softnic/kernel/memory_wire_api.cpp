/// What softnic.h declares.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>

#include "tests/softnic/kernel/local_fabric.h"
#include "tests/softnic/softnic.h"

struct softnic_memory_wire {
  std::shared_ptr<softnic::LocalDevice> device;
  std::filesystem::path directory;
};

namespace softnic {
namespace {

std::mutex devices_mutex;

std::map<std::string, std::shared_ptr<LocalDevice>>& devices() {
  static auto* const all = new std::map<std::string, std::shared_ptr<LocalDevice>>;  // outlives static destructors
  return *all;
}

softnic_memory_wire* open_memory_wire(const softnic_memory_wire_options& options) {
  auto wire = std::make_unique<softnic_memory_wire>();
  wire->device = std::make_shared<LocalDevice>(options);
  wire->directory = std::filesystem::absolute(options.directory);
  setenv("SYSFS_PATH", (wire->directory / "sysfs").c_str(), 1);
  const std::lock_guard held(devices_mutex);
  devices()[wire->directory] = wire->device;
  return wire.release();
}

}  // namespace

std::shared_ptr<LocalDevice> find_local_device(const std::string& directory) {
  const std::lock_guard held(devices_mutex);
  const auto found = devices().find(directory);
  return found == devices().end() ? nullptr : found->second;
}

}  // namespace softnic

#define SOFTNIC_EXPORT extern "C" __attribute__((visibility("default")))

SOFTNIC_EXPORT softnic_memory_wire* softnic_open_memory_wire(const softnic_memory_wire_options* options) {
  try {
    return softnic::open_memory_wire(*options);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "softnic: %s\n", error.what());
    errno = error.code().value();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "softnic: %s\n", error.what());
    errno = ENOMEM;
  }
  return nullptr;
}

SOFTNIC_EXPORT void softnic_close_memory_wire(softnic_memory_wire* wire) {
  {
    const std::lock_guard held(softnic::devices_mutex);
    softnic::devices().erase(wire->directory);
  }
  std::error_code ignored;
  std::filesystem::remove_all(wire->directory / "sysfs", ignored);
  delete wire;
}

SOFTNIC_EXPORT int softnic_memory_wire_send(softnic_memory_wire* wire, const void* frame, std::uint32_t bytes) {
  const softnic::Bytes all(static_cast<const std::uint8_t*>(frame), bytes);
  return wire->device->wire().to_nic().put(all) == softnic::Sent::yes ? 1 : 0;
}

SOFTNIC_EXPORT std::uint32_t softnic_memory_wire_peek(softnic_memory_wire* wire, const void** frame) {
  const softnic::Bytes front = wire->device->wire().from_nic().front();
  *frame = front.data();
  return static_cast<std::uint32_t>(front.size());
}

SOFTNIC_EXPORT void softnic_memory_wire_drop(softnic_memory_wire* wire) { wire->device->wire().from_nic().drop(); }

SOFTNIC_EXPORT std::uint64_t softnic_memory_wire_counter(const softnic_memory_wire* wire, const char* name) {
  const auto found = std::find(softnic::kCounterNames.begin(), softnic::kCounterNames.end(), name);
  if (found == softnic::kCounterNames.end()) return 0;
  return wire->device->board().counters[static_cast<std::size_t>(found - softnic::kCounterNames.begin())].load(
      std::memory_order_acquire);
}

SOFTNIC_EXPORT std::uint64_t softnic_memory_wire_rounds(const softnic_memory_wire* wire) {
  return wire->device->rounds();
}
