#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/problems.h"

namespace vswitch {

/// Where something stands in a text: both from 1, columns in bytes.
struct Place {
  std::size_t line = 1;
  std::size_t column = 1;
};
/// A JSON text, its value, and where in the text each part of the value stands.
class Document {
 public:
  /// Parses `text` (UTF-8, a byte order mark is ignored), which must outlive the document. Adds a problem for a syntax
  /// error, for nesting deeper than any configuration has, and for each key that an object holds twice (the value then
  /// is the last).
  Document(std::string_view text, Problems& problems);

  /// nullptr if the text is no JSON.
  [[nodiscard]] const nlohmann::json* root() const noexcept { return root_ ? &*root_ : nullptr; }
  /// The place of what `problem` is about; where that is missing from the text, of what should hold it.
  [[nodiscard]] Place place(const Problem& problem) const;

 private:
  class Scan;
  struct Offsets {
    std::size_t key = 0;
    std::size_t value = 0;
  };
  [[nodiscard]] Place place_at(std::size_t offset) const;

  std::string_view text_;
  std::vector<std::size_t> line_starts_;
  std::unordered_map<std::string, Offsets> offsets_;
  std::optional<nlohmann::json> root_;
};

}  // namespace vswitch
