#pragma once
#include <cstddef>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace vswitch {

// A pointer below is a JSON pointer (RFC 6901), "/tenants/red/ports/web"; empty for the whole document.

/// The pointer of the member `key` of the object at `pointer`.
[[nodiscard]] std::string child(std::string_view pointer, std::string_view key);
/// The pointer of the element `index` of the array at `pointer`.
[[nodiscard]] std::string child(std::string_view pointer, std::size_t index);
/// The pointer of a port.
[[nodiscard]] std::string port_pointer(std::string_view tenant, std::string_view port);

/// `text` with control characters, '"' and '\\' as JSON escapes: safe on a terminal and always one line.
[[nodiscard]] std::string escaped(std::string_view text);
/// escaped() in quotes; cut where it is longer than people read.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// Something wrong at one place of a document.
struct Problem {
  std::string pointer;
  std::string text;     ///< what was expected and what was found
  bool at_key = false;  ///< the key is wrong, not the value
};

/// Everything found wrong with one document, in the order found.
class Problems {
 public:
  /// Something is wrong with the value at `pointer`.
  void add(std::string pointer, std::string text);
  /// Something is wrong with the key that `pointer` ends in.
  void add_key(std::string pointer, std::string text);
  void append(const Problems& others);

  [[nodiscard]] bool empty() const noexcept { return all_.empty(); }
  [[nodiscard]] const std::vector<Problem>& all() const noexcept { return all_; }
  /// Something is wrong with the value at `pointer` or inside it.
  [[nodiscard]] bool within(std::string_view pointer) const;

 private:
  std::vector<Problem> all_;
  std::set<std::string, std::less<>> pointers_;
};

}  // namespace vswitch
