#include "config/document.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace vswitch {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 32;  // tenants.json needs 8; the library's own recursion needs a bound
constexpr std::size_t kMaxWord = 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

/// Feeds the parser and lets us see how far it has read: its events carry no position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* begin, std::size_t& read) : begin_(begin), read_(&read) {}
  reference operator*() const { return begin_[*read_]; }
  CountingIterator& operator++() {
    ++*read_;
    return *this;
  }
  void operator++(int) { ++*read_; }
  bool operator==(const CountingIterator& other) const { return *read_ == *other.read_; }

 private:
  const char* begin_;
  std::size_t* read_;
};

/// What stands between `before` and `behind` in `text` (up to its end if that is missing); empty without `before`.
std::string_view between(std::string_view text, std::string_view before, std::string_view behind) {
  const std::size_t start = text.find(before);
  if (start == std::string_view::npos) return {};
  text.remove_prefix(start + before.size());
  return text.substr(0, text.find(behind));
}

/// What the parser wanted: its words are "syntax error while parsing CONTEXT - unexpected TOKEN; expected TOKEN", or
/// "... - invalid string: REASON; last read: BYTES; expected TOKEN", or about numbers.
std::string expected_by(std::string_view parser) {
  const std::string_view context = between(parser, "while parsing ", " - ");
  if (context == "object key") return "a key in double quotes";
  if (context == "object") return "',' or '}'";
  if (context == "array") return "',' or ']'";
  const std::string_view expected = between(parser, "; expected ", ";");
  return expected.empty() ? "a value" : std::string(expected);
}

/// What the parser found at the start of `rest`.
std::string found_by(std::string_view parser, std::string_view rest) {
  const std::string_view token = between(parser, " - unexpected ", ";");
  if (!token.empty()) return std::string(token);
  const std::string_view reason = between(parser, " - invalid string: ", ";");
  if (!reason.empty()) return "an invalid string: " + std::string(reason);
  // Any bytes can stand there, and these are for people.
  std::string word(rest.substr(0, std::min(rest.find_first_of(" \t\r\n,]}"), kMaxWord)));
  std::replace_if(
      word.begin(), word.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return in_quotes(word);
}

}  // namespace

/// Records where keys and values start, and finds keys given twice.
class Document::Scan final : public nlohmann::json_sax<json> {
 public:
  Scan(Document& document, Problems& problems) : document_(document), problems_(problems) {}

  bool run() {
    std::size_t end = document_.text_.size();
    return json::sax_parse(CountingIterator(document_.text_.data(), read_),
                           CountingIterator(document_.text_.data(), end), this);
  }

  bool null() override { return value(); }
  bool boolean(bool) override { return value(); }
  bool number_integer(json::number_integer_t) override { return value(); }
  bool number_unsigned(json::number_unsigned_t) override { return value(); }
  bool number_float(json::number_float_t, const std::string&) override { return value(); }
  bool string(std::string&) override { return value(); }
  bool binary(json::binary_t&) override { return value(); }
  bool start_object(std::size_t) override { return start(true); }
  bool start_array(std::size_t) override { return start(false); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }

  bool key(std::string& name) override {
    Level& level = levels_.back();
    level.key_offset = token_start();
    level.member = child(level.pointer, name);
    const auto [first, fresh] = level.keys.emplace(name, level.key_offset);
    if (!fresh) {
      const Place place = document_.place_at(first->second);
      problems_.add_key(level.member, "expected each key once, found " + in_quotes(name) + " again (first at line " +
                                          std::to_string(place.line) + ", column " + std::to_string(place.column) +
                                          ")");
    }
    read_before_ = read_;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    const std::size_t start = std::min(token_start(), read_ == 0 ? 0 : read_ - 1);
    const std::string_view rest = document_.text_.substr(start);
    std::string text = "expected " + expected_by(error.what()) + ", found " + found_by(error.what(), rest);
    const std::string_view before = document_.text_.substr(0, start);
    const std::size_t last = before.find_last_not_of(" \t\r\n");
    const bool closing = rest.starts_with(']') || rest.starts_with('}');
    if (closing && last != std::string_view::npos && before[last] == ',') {
      text += "; no comma may follow the last element";
    }
    syntax_error(start, std::move(text));
    return false;
  }

 private:
  struct Level {
    std::string pointer;
    std::string member;  ///< pointer of the member whose value comes next; objects only
    std::size_t key_offset = 0;
    std::size_t next_index = 0;
    std::unordered_map<std::string, std::size_t> keys;
    bool is_object = false;
  };

  /// Where the token starts that the parser read last: behind the token before it and what may stand between.
  [[nodiscard]] std::size_t token_start() const {
    return std::min(document_.text_.find_first_not_of(" \t\r\n,:", read_before_), document_.text_.size());
  }

  void syntax_error(std::size_t offset, std::string text) {
    document_.offsets_[std::string()] = {offset, offset};
    problems_.add({}, std::move(text));
  }

  /// Notes the value that starts here. @return its pointer
  std::string note() {
    const std::size_t offset = token_start();
    std::string pointer;
    std::size_t key_offset = offset;
    if (!levels_.empty()) {
      Level& level = levels_.back();
      pointer = level.is_object ? level.member : child(level.pointer, level.next_index++);
      if (level.is_object) key_offset = level.key_offset;
    }
    document_.offsets_[pointer] = {key_offset, offset};
    return pointer;
  }

  bool value() {
    note();
    read_before_ = read_;
    return true;
  }

  bool start(bool is_object) {
    const std::size_t offset = token_start();
    if (levels_.size() == kMaxDepth) {
      syntax_error(offset, "expected at most " + std::to_string(kMaxDepth) + " levels of nesting, found more");
      return false;
    }
    Level level;
    level.pointer = note();
    level.is_object = is_object;
    levels_.push_back(std::move(level));
    read_before_ = read_;
    return true;
  }

  bool end() {
    levels_.pop_back();
    read_before_ = read_;
    return true;
  }

  Document& document_;
  Problems& problems_;
  std::size_t read_ = 0;         ///< bytes the parser has taken
  std::size_t read_before_ = 0;  ///< the same at the event before
  std::vector<Level> levels_;
};

Place Document::place_at(std::size_t offset) const {
  const auto next = std::upper_bound(line_starts_.begin(), line_starts_.end(), offset);
  return {static_cast<std::size_t>(next - line_starts_.begin()), offset - *std::prev(next) + 1};
}

Document::Document(std::string_view text, Problems& problems)
    : text_(text.starts_with(kByteOrderMark) ? text.substr(kByteOrderMark.size()) : text), line_starts_{0} {
  for (std::size_t i = text_.find('\n'); i != std::string_view::npos; i = text_.find('\n', i + 1)) {
    line_starts_.push_back(i + 1);
  }
  if (text_.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    problems.add({}, "expected an object, found an empty text");
    return;
  }
  Scan scan(*this, problems);
  if (scan.run()) root_ = json::parse(text_);
}

Place Document::place(const Problem& problem) const {
  bool at_key = problem.at_key;
  for (std::string pointer = problem.pointer;;) {
    const auto found = offsets_.find(pointer);
    if (found != offsets_.end()) return place_at(at_key ? found->second.key : found->second.value);
    if (pointer.empty()) return {};
    pointer.resize(pointer.rfind('/'));
    at_key = true;
  }
}

}  // namespace vswitch
