#pragma once
#include <ostream>
#include <string>
#include <vector>

namespace vswitch {

/// Rows of cells in aligned columns. A column whose heading starts with '>' is aligned to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> headings);
  /// @param cells as many as there are headings
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
  void print(std::ostream& out) const;

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace vswitch
