#pragma once
#include <sys/types.h>

#include <functional>
#include <string>

#include "vswitch/base/fd.h"

namespace vswitch {

/// An open network namespace: it lives at least as long as this. Control thread only.
class Netns {
 public:
  /// Opens the namespace at `path` ("/run/netns/red", "/proc/1234/ns/net"); empty: the calling thread's own. Throws
  /// Error if there is none, or if the path is something else.
  static Netns open(const std::string& path);

  /// Runs `work` inside the namespace, on a thread of its own that ends before run() returns: the caller never leaves
  /// its namespace, whatever `work` does. Descriptors that `work` opens stay bound to the namespace. Throws what `work`
  /// throws, and Error when the namespace cannot be entered.
  void run(const std::function<void()>& work) const;

  /// The path it was opened by; "the daemon's own namespace" if that was empty. For people.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// What tells namespaces apart: the inode. Unique while anything keeps the namespace alive.
  [[nodiscard]] ino_t inode() const noexcept { return inode_; }

 private:
  Netns(Fd fd, std::string name, ino_t inode) : fd_(std::move(fd)), name_(std::move(name)), inode_(inode) {}
  Fd fd_;
  std::string name_;
  ino_t inode_;
};

/// True while `path` leads to the namespace with that inode (false: deleted, or another one took its place).
[[nodiscard]] bool is_netns_at(const std::string& path, ino_t inode) noexcept;

}  // namespace vswitch
