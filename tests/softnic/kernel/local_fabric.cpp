#include "tests/softnic/kernel/local_fabric.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "tests/softnic/daemon/sysfs.h"

namespace softnic {
namespace {

constexpr std::size_t kMostWaiting = 4096;
constexpr std::uint64_t kRoundsPerLinkCheck = 1024;

std::string board_in(const char* directory) {
  std::filesystem::create_directories(directory);
  return std::string(directory) + "/board";
}

}  // namespace

LocalDevice::LocalDevice(const softnic_memory_wire_options& options)
    : board_(board_in(options.directory), true), wire_(options.mtu), device_(*board_) {
  board_->seed = options.seed;
  board_->poison = options.poison != 0 ? Poison::kRequests | Poison::kBuffers : 0;
  board_->features = Feature::kAll;
  board_->ports = 1;
  board_->mtu = options.mtu;
  board_->max_cqe = kMostEntries;
  device_.add_port(wire_.nic_end(), open_kernel_netdev(options.netdev, options.mac, options.mtu));
  write_sysfs({options.directory, options.device, 0, true, {options.netdev}});
}

LocalFabric::LocalFabric(std::shared_ptr<LocalDevice> device)
    : device_(std::move(device)), round_(device_->mutex_, std::defer_lock) {
  const std::lock_guard held(device_->mutex_);
  owner_ = device_->device_.open(*this);
}

LocalFabric::~LocalFabric() {
  if (round_.owns_lock()) round_.unlock();
  const std::lock_guard held(device_->mutex_);
  device_->device_.close(owner_);
}

std::uint32_t LocalFabric::allocate_queue() {
  const std::lock_guard held(device_->mutex_);
  return device_->device_.allocate_queue();
}

void LocalFabric::release_queue(std::uint32_t queue) {
  const std::lock_guard held(device_->mutex_);
  device_->device_.release_queue({owner_, queue});
}

std::pair<int, RuleId> LocalFabric::add_rule(Rule rule) {
  const std::lock_guard held(device_->mutex_);
  rule.queue.owner = owner_;
  return device_->device_.add_rule(rule);
}

int LocalFabric::remove_rule(RuleId id) {
  const std::lock_guard held(device_->mutex_);
  return device_->device_.remove_rule(owner_, id);
}

void LocalFabric::transmit(std::uint8_t port, std::uint32_t from, Bytes frame) {
  if (!round_.owns_lock()) round_.lock();
  device_->device_.transmit({owner_, from}, port, frame);
}

std::size_t LocalFabric::receive(Sink& sink, std::size_t most) {
  if (!round_.owns_lock()) round_.lock();
  const std::size_t waited = std::min(most, waiting_.size());
  for (std::size_t i = 0; i < waited; ++i) sink.deliver(waiting_[i].port, waiting_[i].to, waiting_[i].frame);
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(waited));
  receiving_ = &sink;
  const std::size_t taken = waited < most ? device_->device_.poll(most - waited) : 0;
  receiving_ = nullptr;
  const std::uint64_t round = device_->rounds_.fetch_add(1, std::memory_order_acq_rel);
  if (round % kRoundsPerLinkCheck == 0) device_->device_.check_links();
  round_.unlock();
  return waited + taken;
}

void LocalFabric::deliver(std::uint8_t port, const Delivery& to, Bytes frame) {
  if (receiving_ != nullptr && waiting_.empty()) {
    receiving_->deliver(port, to, frame);
  } else if (waiting_.size() < kMostWaiting) {
    waiting_.push_back({port, to, {frame.begin(), frame.end()}});
  } else {
    device_->board().count(Counter::drop_channel_full);
  }
}

}  // namespace softnic
