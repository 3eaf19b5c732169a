#include "config/load.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "config/document.h"
#include "config/problems.h"
#include "config/read_spec.h"
#include "config/rules.h"
#include "config/schema_check.h"
#include "config/schema_text.h"
#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"

namespace vswitch {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = std::size_t{16} << 20;  // some ten times a switch with 8192 ports

const json& schema() {
  static const json value = json::parse(schema_text());
  return value;
}

[[noreturn]] void throw_problems(const Document& document, const Problems& problems, std::string_view origin) {
  struct Line {
    Place place;
    std::string text;
  };
  std::vector<Line> lines;
  for (const Problem& problem : problems.all()) {
    std::string text = ": ";
    if (!problem.pointer.empty()) text += escaped(problem.pointer) + ": ";
    lines.push_back({document.place(problem), text + problem.text});
  }
  std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
    return std::tie(a.place.line, a.place.column) < std::tie(b.place.line, b.place.column);
  });
  std::string subject(origin);
  subject += lines.size() == 1 ? ": 1 problem" : ": " + std::to_string(lines.size()) + " problems";
  for (const Line& line : lines) {
    subject.append("\n").append(origin).append(":").append(std::to_string(line.place.line));
    subject.append(":").append(std::to_string(line.place.column)).append(line.text);
  }
  throw Error(0, "configuration", subject);
}

std::string read_all(const std::filesystem::path& file) {
  const char* const hint = "name a readable tenants.json";
  const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) throw_errno("open configuration", file.native(), hint);
  std::string text;
  std::array<char, 1 << 16> chunk;
  for (;;) {
    const ssize_t got = ::read(fd.get(), chunk.data(), chunk.size());
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read configuration", file.native(), hint);
    text.append(chunk.data(), static_cast<std::size_t>(got));
    if (text.size() > kMaxFileBytes) throw Error(EFBIG, "read configuration", file.native(), "16 MiB is the limit");
  }
}

}  // namespace

SwitchSpec load_text(std::string_view text, std::string_view origin) {
  Problems problems;
  const Document document(text, problems);
  if (document.root() == nullptr) throw_problems(document, problems, origin);
  check_schema(schema(), *document.root(), problems);
  SwitchSpec spec = read_spec(*document.root(), problems);
  check_rules(spec, problems);
  if (!problems.empty()) throw_problems(document, problems, origin);
  return spec;
}

SwitchSpec load_file(const std::filesystem::path& file) { return load_text(read_all(file), file.native()); }

}  // namespace vswitch
