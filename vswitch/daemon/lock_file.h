#pragma once
#include <filesystem>
#include <string>

#include "vswitch/base/fd.h"

namespace vswitch {

/// One daemon per control socket: a file beside it, locked while the daemon lives and naming its process. The kernel
/// drops the lock with the process, so that a killed daemon never stops the next one.
class LockFile {
 public:
  /// Throws Error: another daemon holds the lock (the text names its process), or the file cannot be made.
  explicit LockFile(std::string path);
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;
  /// Removes the file.
  ~LockFile();

 private:
  std::string path_;
  Fd fd_;
};

/// A file that holds our process id, for service managers that want one. Removed at the end.
class PidFile {
 public:
  /// @param path empty: no file. Throws Error.
  explicit PidFile(std::string path);
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

 private:
  std::string path_;
};

/// The directory of the control socket: made if missing, and then removed at the end when nothing is left in it.
class RuntimeDirectory {
 public:
  /// Throws Error.
  explicit RuntimeDirectory(const std::filesystem::path& path);
  RuntimeDirectory(const RuntimeDirectory&) = delete;
  RuntimeDirectory& operator=(const RuntimeDirectory&) = delete;
  ~RuntimeDirectory();

 private:
  std::filesystem::path created_;
};

}  // namespace vswitch
