/// Names of enumerators, and rates.
#include <infiniband/verbs.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace {

// Multiples of 2500 Mbit/s are the classic rates; the others are of newer links.
constexpr std::pair<ibv_rate, int> kMbps[] = {
    {IBV_RATE_2_5_GBPS, 2500},   {IBV_RATE_5_GBPS, 5000},     {IBV_RATE_10_GBPS, 10000},    {IBV_RATE_14_GBPS, 14062},
    {IBV_RATE_20_GBPS, 20000},   {IBV_RATE_25_GBPS, 25781},   {IBV_RATE_28_GBPS, 28125},    {IBV_RATE_30_GBPS, 30000},
    {IBV_RATE_40_GBPS, 40000},   {IBV_RATE_50_GBPS, 53125},   {IBV_RATE_56_GBPS, 56250},    {IBV_RATE_60_GBPS, 60000},
    {IBV_RATE_80_GBPS, 80000},   {IBV_RATE_100_GBPS, 103125}, {IBV_RATE_112_GBPS, 112500},  {IBV_RATE_120_GBPS, 120000},
    {IBV_RATE_168_GBPS, 168750}, {IBV_RATE_200_GBPS, 206250}, {IBV_RATE_300_GBPS, 309375},  {IBV_RATE_400_GBPS, 425000},
    {IBV_RATE_600_GBPS, 637500}, {IBV_RATE_800_GBPS, 850000}, {IBV_RATE_1200_GBPS, 1275000}};
constexpr int kBaseMbps = 2500;

constexpr std::array kStatus = {"success",
                                "local length error",
                                "local queue pair operation error",
                                "local EE context operation error",
                                "local protection error",
                                "work request flushed",
                                "memory window bind error",
                                "bad response",
                                "local access error",
                                "remote invalid request",
                                "remote access error",
                                "remote operation error",
                                "transport retries exceeded",
                                "receiver-not-ready retries exceeded",
                                "local RDD violation",
                                "remote invalid RD request",
                                "remote abort",
                                "invalid EE context number",
                                "invalid EE context state",
                                "fatal error",
                                "response timeout",
                                "general error",
                                "tag matching error",
                                "tag matching rendezvous incomplete"};
constexpr std::array kPortState = {"PORT_NOP",   "PORT_DOWN",   "PORT_INIT",
                                   "PORT_ARMED", "PORT_ACTIVE", "PORT_ACTIVE_DEFER"};
constexpr std::array kNodeType = {"channel adapter", "switch",         "router",           "RDMA NIC",
                                  "usNIC",           "usNIC over UDP", "node without type"};
constexpr std::array kEvent = {"completion queue error",
                               "queue pair fatal error",
                               "queue pair request error",
                               "queue pair access error",
                               "communication established",
                               "send queue drained",
                               "path migrated",
                               "path migration failed",
                               "device fatal error",
                               "port active",
                               "port error",
                               "LID change",
                               "P_Key change",
                               "subnet manager change",
                               "shared receive queue error",
                               "shared receive queue limit reached",
                               "last work request reached",
                               "client re-registration",
                               "GID change",
                               "work queue fatal error"};

template <typename Names>
const char* name(const Names& names, int index) {
  return index >= 0 && static_cast<std::size_t>(index) < names.size() ? names[static_cast<std::size_t>(index)]
                                                                      : "unknown";
}

}  // namespace

const char* ibv_wc_status_str(ibv_wc_status status) { return name(kStatus, status); }
const char* ibv_port_state_str(ibv_port_state state) { return name(kPortState, state); }
const char* ibv_event_type_str(ibv_event_type event) { return name(kEvent, event); }
const char* ibv_node_type_str(ibv_node_type type) { return name(kNodeType, static_cast<int>(type) - IBV_NODE_CA); }

int ibv_rate_to_mbps(ibv_rate rate) {
  const auto found =
      std::find_if(std::begin(kMbps), std::end(kMbps), [&](const auto& one) { return one.first == rate; });
  return found == std::end(kMbps) ? -1 : found->second;
}

ibv_rate mbps_to_ibv_rate(int mbps) {
  const auto found =
      std::find_if(std::begin(kMbps), std::end(kMbps), [&](const auto& one) { return one.second == mbps; });
  return found == std::end(kMbps) ? IBV_RATE_MAX : found->first;
}

int ibv_rate_to_mult(ibv_rate rate) {
  const int mbps = ibv_rate_to_mbps(rate);
  return mbps % kBaseMbps == 0 ? mbps / kBaseMbps : -1;
}

ibv_rate mult_to_ibv_rate(int mult) { return mbps_to_ibv_rate(mult * kBaseMbps); }
