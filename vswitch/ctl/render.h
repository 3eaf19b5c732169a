#pragma once
#include <nlohmann/json.hpp>
#include <ostream>

// The daemon's answers as people read them. What is missing in an answer is printed as "-", so that a tool and a daemon
// of different versions get along.

namespace vswitch {

void render_show(const nlohmann::json& answer, std::ostream& out);
void render_stats(const nlohmann::json& answer, std::ostream& out);
/// The change from one answer to the next, per second.
void render_rates(const nlohmann::json& before, const nlohmann::json& now, std::ostream& out);
void render_reload(const nlohmann::json& answer, std::ostream& out);
void render_trace(const nlohmann::json& answer, std::ostream& out);
void render_drops(const nlohmann::json& answer, std::ostream& out);

}  // namespace vswitch
