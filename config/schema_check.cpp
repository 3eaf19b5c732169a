#include "config/schema_check.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <unordered_map>
#include <utility>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>
#include <vector>

#include "config/nearest.h"

// Theory of operation: valijson says whether a value fits the schema, in terms of constraints ("failed to match
// regex"). When it does not, Explainer walks value and schema together and says the same in terms of the user's text.

namespace vswitch {
namespace {

using nlohmann::json;
using Adapter = valijson::adapters::NlohmannJsonAdapter;

/// "a", "b" or "c"
std::string alternatives(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += in_quotes(words[i]);
  }
  return text;
}

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const std::string_view meant = nearest(word, known);
  return meant.empty() ? std::string() : "; did you mean " + in_quotes(meant) + "?";
}

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, unused] : object.items()) keys.push_back(key);
  return keys;
}

std::size_t characters(const std::string& utf8) {
  return static_cast<std::size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

std::string describe_found(const json& node, const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (!value.is_string()) return value.dump();
  const auto& text = value.get_ref<const std::string&>();
  // A secret must not reach a log.
  if (node.value("writeOnly", false)) return "a string of " + std::to_string(characters(text)) + " characters";
  return in_quotes(text);
}

class Explainer {
 public:
  Explainer(const json& schema, Problems& problems) : schema_(schema), problems_(problems) {}

  void explain(const json& unresolved, const json& value, const std::string& pointer) {
    const json& node = resolve(unresolved);
    if (!has_type(node, value) || !fits(node, value)) {
      std::string text = "expected " + describe_expected(node) + ", found " + describe_found(node, value);
      if (node.contains("enum") && value.is_string()) text += suggestion(value, node["enum"]);
      problems_.add(pointer, std::move(text));
    } else if (node.contains("oneOf")) {
      explain_kind(node, value, pointer);
    } else if (value.is_object()) {
      explain_object(node, value, pointer);
    } else if (value.is_array()) {
      explain_array(node, value, pointer);
    }
  }

 private:
  [[nodiscard]] const json& resolve(const json& node) const {
    const auto reference = node.find("$ref");
    if (reference == node.end()) return node;
    return schema_.at(json::json_pointer(reference->get_ref<const std::string&>().substr(1)));
  }

  static bool has_type(const json& node, const json& value) {
    const auto types = node.find("type");
    if (types == node.end()) return true;
    if (!types->is_array()) return is_of(*types, value);
    return std::any_of(types->begin(), types->end(), [&](const json& type) { return is_of(type, value); });
  }

  static bool is_of(const std::string& type, const json& value) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "integer") return value.is_number_integer();
    if (type == "boolean") return value.is_boolean();
    return true;
  }

  /// Constraints of scalars; the type fits.
  bool fits(const json& node, const json& value) {
    if (node.contains("const") && node["const"] != value) return false;
    if (node.contains("enum") && std::find(node["enum"].begin(), node["enum"].end(), value) == node["enum"].end()) {
      return false;
    }
    if (value.is_number()) {
      return !(node.contains("minimum") && value < node["minimum"]) &&
             !(node.contains("maximum") && value > node["maximum"]);
    }
    if (!value.is_string()) return true;
    const auto& text = value.get_ref<const std::string&>();
    const std::size_t length = characters(text);
    return length >= node.value("minLength", std::size_t{0}) && length <= node.value("maxLength", text.size()) &&
           (!node.contains("pattern") || matches(node["pattern"].get_ref<const std::string&>(), text));
  }

  bool matches(const std::string& pattern, const std::string& text) {
    auto found = patterns_.find(pattern);
    if (found == patterns_.end()) found = patterns_.emplace(pattern, std::regex(pattern)).first;
    return std::regex_search(text, found->second);
  }

  /// What the user could have written instead.
  static std::string describe_expected(const json& node) {
    if (node.contains("x-expected")) return node["x-expected"];
    if (node.contains("const")) return node["const"].dump();
    if (node.contains("enum")) return alternatives(node["enum"]);
    const std::string type = node.value("type", "");
    if (type == "object") return "an object";
    if (type == "array") return "an array";
    if (type == "boolean") return "true or false";
    if (type == "integer") return "an integer from " + node["minimum"].dump() + " to " + node["maximum"].dump();
    return "a string";
  }

  /// An object whose member "kind" selects one of several schemas.
  void explain_kind(const json& node, const json& value, const std::string& pointer) {
    std::vector<std::string> kinds;
    for (const json& branch : node["oneOf"]) {
      const json& candidate = resolve(branch);
      kinds.push_back(candidate["properties"]["kind"]["const"]);
      if (value.contains("kind") && value["kind"] == kinds.back()) return explain_object(candidate, value, pointer);
    }
    if (!value.contains("kind")) {
      problems_.add(pointer, "expected the key \"kind\" with " + alternatives(kinds) + ", found none");
    } else {
      const json& kind = value["kind"];
      problems_.add(child(pointer, "kind"),
                    "expected " + alternatives(kinds) + ", found " + describe_found(node, kind));
    }
  }

  void explain_object(const json& node, const json& value, const std::string& pointer) {
    for (const json& key : node.value("required", json::array())) {
      if (!value.contains(key)) problems_.add(pointer, "expected the key " + key.dump() + ", found none");
    }
    if (node.contains("not")) explain_excluded(node["not"]["required"], value, pointer);
    const json& properties = node.contains("properties") ? node["properties"] : json::object();
    for (const auto& [key, member] : value.items()) {
      const std::string place = child(pointer, key);
      if (properties.contains(key)) {
        explain(properties[key], member, place);
      } else if (!node.contains("additionalProperties")) {
        continue;
      } else if (node["additionalProperties"].is_object()) {
        explain_name(node, key, place);
        explain(node["additionalProperties"], member, place);
      } else {
        explain_unknown(properties, key, place);
      }
    }
  }

  void explain_excluded(const std::vector<std::string>& keys, const json& value, const std::string& pointer) {
    const auto given = [&](const std::string& key) { return value.contains(key); };
    if (std::all_of(keys.begin(), keys.end(), given)) {
      problems_.add(pointer, "expected only one of " + alternatives(keys) + ", found all of them");
    }
  }

  void explain_name(const json& node, const std::string& key, const std::string& place) {
    if (!node.contains("propertyNames")) return;
    const json& names = resolve(node["propertyNames"]);
    if (!fits(names, key))
      problems_.add_key(place, "expected " + describe_expected(names) + ", found " + in_quotes(key));
  }

  void explain_unknown(const json& properties, const std::string& key, const std::string& place) {
    const std::vector<std::string> known = keys_of(properties);
    problems_.add_key(place, "expected " + alternatives(known) + ", found the unknown key " + in_quotes(key) +
                                 suggestion(key, known));
  }

  void explain_array(const json& node, const json& value, const std::string& pointer) {
    const std::size_t least = node.value("minItems", std::size_t{0});
    const std::size_t most = node.value("maxItems", value.size());
    if (value.size() < least || value.size() > most) {
      problems_.add(pointer, "expected an array of " + std::to_string(least) + " to " + std::to_string(most) +
                                 " elements, found " + std::to_string(value.size()));
      return;
    }
    for (std::size_t i = 0; i < value.size(); ++i) {
      const auto here = value.begin() + static_cast<json::difference_type>(i);
      if (node.value("uniqueItems", false) && std::find(value.begin(), here, *here) != here) {
        problems_.add(child(pointer, i), "expected each element once, found " + describe_found(node, *here) + " again");
      }
      if (node.contains("items")) explain(node["items"], *here, child(pointer, i));
    }
  }

  const json& schema_;
  Problems& problems_;
  std::unordered_map<std::string, std::regex> patterns_;
};

/// What valijson itself has to say, for constraints that Explainer does not know.
void add_plain(const valijson::Schema& schema, const json& value, Problems& problems) {
  valijson::Validator validator;
  valijson::ValidationResults results;
  validator.validate(schema, Adapter(value), &results);
  for (const valijson::ValidationResults::Error& error : results) {
    std::string pointer;  // from ["<root>", "[tenants]", "[red]"]
    for (std::size_t i = 1; i < error.context.size(); ++i) {
      const std::string& part = error.context[i];
      pointer = child(pointer, std::string_view(part).substr(1, part.size() - 2));
    }
    problems.add(std::move(pointer), error.description);
  }
}

}  // namespace

void check_schema(const json& schema, const json& value, Problems& problems) {
  valijson::Schema compiled;
  valijson::SchemaParser parser(valijson::SchemaParser::kDraft7);
  const Adapter adapter(schema);
  parser.populateSchema(adapter, compiled);
  valijson::Validator validator;
  if (validator.validate(compiled, Adapter(value), nullptr)) return;

  Problems explained;
  Explainer(schema, explained).explain(schema, value, {});
  if (explained.empty()) add_plain(compiled, value, explained);
  problems.append(explained);
}

}  // namespace vswitch
