/// The list of devices, and opening and closing them. As libibverbs does, devices are looked for below SYSFS_PATH; only
/// those that `softnic serve` made are found.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "tests/softnic/dropin/context.h"

namespace softnic::dropin {
namespace {

std::mutex registry_mutex;

std::string sysfs() {
  const char* path = std::getenv("SYSFS_PATH");
  return path == nullptr ? "/sys" : path;
}

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

template <std::size_t N>
void put(char (&to)[N], const std::string& text) {
  to[text.copy(to, N - 1)] = 0;
}

// By folder of the daemon. They stay, so that a context's device is valid when the list is freed.
Device& device_at(const std::filesystem::path& verbs, const std::string& folder) {
  static auto* const devices = new std::map<std::string, Device>;  // outlives static destructors
  const std::lock_guard held(registry_mutex);
  const auto [found, fresh] = devices->try_emplace(folder);
  Device& device = found->second;
  if (!fresh) return device;
  const std::string name = first_line(verbs / "ibdev");
  device.node_type = IBV_NODE_CA;
  device.transport_type = IBV_TRANSPORT_IB;
  put(device.name, name);
  put(device.dev_name, verbs.filename().string());
  put(device.dev_path, verbs.string());
  put(device.ibdev_path, sysfs() + "/class/infiniband/" + name);
  device.folder = folder;
  return device;
}

/// Every open context.
std::set<Context*>& open_contexts() {
  static auto* const all = new std::set<Context*>;  // outlives static destructors
  return *all;
}

/// At the process's end, frames that are on their way to contexts still open are counted.
struct AtExit {
  ~AtExit() {
    const std::lock_guard held(registry_mutex);
    for (Context* context : open_contexts()) context->engine.quiesce();
  }
} at_exit;

}  // namespace

Context::Context(Device& device)
    : verbs_context{},
      board(device.folder + "/board", false),
      fabric(device.folder + "/socket", *board),
      engine(fabric, *board, fabric.fd(),
             [this](std::uint32_t type, std::uint64_t element) { async_event(type, element); }) {
  sz = sizeof(verbs_context);
  context.device = &device;
  context.cmd_fd = -1;
  context.async_fd = async.read_fd();
  context.num_comp_vectors = kVectors;
  context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  pthread_mutex_init(&context.mutex, nullptr);
  set_cq_calls(*this);
  set_qp_calls(*this);
  set_wq_calls(*this);
  set_flow_calls(*this);
  set_query_calls(*this);
}

Context::~Context() {
  engine.quiesce();
  pthread_mutex_destroy(&context.mutex);
  ::close(async.read_fd());
}

int Context::injected(std::uint32_t command, std::uint32_t or_command) noexcept {
  const std::uint32_t wanted = board->fail_command.load(std::memory_order_acquire);
  if (wanted == 0 || (wanted != command + 1 && wanted != or_command + 1)) return 0;
  std::uint32_t times = board->fail_times.load();
  while (times != 0 && !board->fail_times.compare_exchange_weak(times, times - 1)) {
  }
  if (times == 0) return 0;
  board->count(Counter::faults);
  return static_cast<int>(board->fail_errno.load());
}

void Context::async_event(std::uint32_t type, std::uint64_t element) {
  const AsyncRecord record{element, type, 0};
  if (::write(async.write_fd(), &record, sizeof record) < 0) return;  // full: the application does not read
}

}  // namespace softnic::dropin

using namespace softnic::dropin;

ibv_device** ibv_get_device_list(int* count) {
  std::vector<ibv_device*> found;
  std::error_code none;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(sysfs()) / "class/infiniband_verbs", none)) {
    const std::string folder = first_line(entry.path() / "softnic");
    if (!folder.empty()) found.push_back(&device_at(entry.path(), folder));
  }
  auto** list = static_cast<ibv_device**>(std::calloc(found.size() + 1, sizeof(ibv_device*)));
  if (list == nullptr) return nullptr;
  std::copy(found.begin(), found.end(), list);
  if (count != nullptr) *count = static_cast<int>(found.size());
  return list;
}

void ibv_free_device_list(ibv_device** list) { std::free(list); }

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

ibv_context* ibv_open_device(ibv_device* device) {
  try {
    auto opened = std::make_unique<Context>(static_cast<Device&>(*device));
    if (const int error = opened->injected(IB_USER_VERBS_CMD_GET_CONTEXT)) {
      opened.reset();  // which changes errno
      return refuse(error);
    }
    const std::lock_guard held(registry_mutex);
    open_contexts().insert(opened.get());
    return &opened.release()->context;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "softnic: %s\n", error.what());
    return refuse(EIO);
  }
}

int ibv_close_device(ibv_context* context) {
  const std::unique_ptr<Context> closed(&context_of(context));
  const std::lock_guard held(registry_mutex);
  open_contexts().erase(closed.get());
  return 0;
}

extern "C" const char* ibv_get_sysfs_path() {
  static const std::string path = sysfs();
  return path.c_str();
}

// Without the newline. @return bytes, or -1.
extern "C" int ibv_read_sysfs_file(const char* folder, const char* name, char* out, std::size_t bytes) {
  std::ifstream file(std::filesystem::path(folder) / name);
  std::string line;
  if (!std::getline(file, line) || bytes == 0) return -1;
  out[line.copy(out, bytes - 1)] = 0;
  return static_cast<int>(std::strlen(out));
}
