#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <future>
#include <iterator>
#include <optional>
#include <thread>

#include "tests/unit/loop_switch.h"
#include "vswitch/daemon/control_api.h"
#include "vswitch/daemon/control_client.h"
#include "vswitch/daemon/control_server.h"
#include "vswitch/daemon/unix_socket.h"

namespace vswitch {
namespace {

using namespace test;
using nlohmann::json;

/// A control server over a running switch, on a thread of its own as in the daemon.
class Daemon {
 public:
  explicit Daemon(std::string path, SwitchSpec spec) : path_(std::move(path)) {
    std::promise<void> ready;
    auto started = ready.get_future();
    thread_ = std::thread([this, spec = std::move(spec), &ready] { run(spec, ready); });
    started.get();
  }
  ~Daemon() {
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  void run(const SwitchSpec& spec, std::promise<void>& ready) {
    UringReactor reactor;
    LoopWorld world;
    Switch running(spec.workers, reactor, world.factory());
    running.apply(spec);
    RpcDispatcher dispatcher;
    int reloads = 0;
    add_control_methods(dispatcher, running, [&] {
      if (++reloads > 1) throw Error(ENOENT, "read", "tenants.json", "it is gone");
      return running.apply(spec);
    });
    dispatcher.add("big", [](const Json&) { return std::string(4 << 20, 'x'); });
    const ControlServer server(reactor, dispatcher, path_);
    const auto watch = reactor.watch(stop_.get(), [&] { reactor.stop(); });
    ready.set_value();
    reactor.run();
    reactor.cancel(watch);
  }

  std::string path_;
  Fd stop_{::eventfd(0, EFD_CLOEXEC)};
  std::thread thread_;
};

/// A client that says what it likes.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const UnixAddress address(path);
    if (::connect(socket_.get(), address.generic(), address.size()) != 0) throw_errno("connect to", path);
  }
  /// False when the daemon closed the connection.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void end_of_requests() { ::shutdown(socket_.get(), SHUT_WR); }
  /// One line; nullopt when the daemon closed the connection or says nothing for `timeout_ms`.
  std::optional<std::string> line(int timeout_ms = 5000) {
    while (input_.find('\n') == std::string::npos) {
      pollfd wanted{socket_.get(), POLLIN, 0};
      if (::poll(&wanted, 1, timeout_ms) != 1) return std::nullopt;
      std::array<char, 65'536> chunk;
      const ssize_t got = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
      if (got <= 0) return std::nullopt;
      input_.append(chunk.data(), static_cast<std::size_t>(got));
    }
    const std::size_t end = input_.find('\n');
    std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    return line;
  }
  [[nodiscard]] bool closed_by_daemon(int timeout_ms = 5000) {
    pollfd wanted{socket_.get(), POLLIN, 0};
    char byte = 0;
    return ::poll(&wanted, 1, timeout_ms) == 1 && ::recv(socket_.get(), &byte, 1, 0) <= 0;
  }
  int error_code(const std::string& request) {
    if (!send(request + "\n")) return 0;
    const auto answer = line();
    return answer ? json::parse(*answer).at("error").at("code").get<int>() : 0;
  }

 private:
  Fd socket_;
  std::string input_;
};

std::string request(int id, const std::string& method, const json& params = json::object()) {
  return json({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}}).dump() + "\n";
}

SwitchSpec example() {
  PortSpec web = port("web", 1);
  web.vlan = 100;
  PortSpec db = port("db", 2);
  db.vlan = 100;
  PortSpec lonely = port("lonely", 3);
  lonely.mode = Mode::private_;
  return on_lan({db, lonely, web});
}

class ControlTest : public ::testing::Test {
 protected:
  Daemon daemon_{::testing::TempDir() + "control-" + std::to_string(::getpid()) + ".sock", example()};
  ControlClient client_{daemon_.path()};

  json trace(const json& params) { return client_.call("trace", params); }
  /// Expects `method` to be refused with `text` in the message.
  void expect_refusal(const std::string& method, const json& params, RpcCode code, const std::string& text) {
    try {
      client_.call(method, params);
      ADD_FAILURE() << method << " " << params << " was accepted";
    } catch (const RemoteError& error) {
      EXPECT_EQ(error.rpc_code(), static_cast<int>(code)) << params;
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }
};

TEST_F(ControlTest, SocketBelongsToTheDaemonAlone) {
  struct stat info {};
  ASSERT_EQ(::stat(daemon_.path().c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(ControlTest, Version) {
  const json answer = client_.call("version");
  EXPECT_EQ(answer["name"], "vswitchd");
  EXPECT_EQ(answer["pid"], ::getpid());
  EXPECT_EQ(std::count(answer["version"].get_ref<const std::string&>().begin(),
                       answer["version"].get_ref<const std::string&>().end(), '.'),
            2);
}

TEST_F(ControlTest, ShowTellsAll) {
  const json answer = client_.call("show");
  ASSERT_EQ(answer["ports"].size(), 3U);
  const json& web = answer["ports"][2];
  EXPECT_EQ(web["name"], "t/web");
  EXPECT_EQ(web["mac"], "02:00:00:00:00:01");
  EXPECT_EQ(web["vlan"], 100);
  EXPECT_EQ(web["mode"], "bridge");
  EXPECT_EQ(web["mtu"], 1500);
  EXPECT_EQ(web["link"], "up");
  EXPECT_EQ(web["attach"]["kind"], "tap");
  EXPECT_EQ(answer["uplinks"][0]["netdev"], "eth9");
  EXPECT_EQ(answer["uplinks"][0]["mac"], "02:ff:00:00:00:01");
  EXPECT_EQ(answer["workers"].size(), 1U);
}

TEST_F(ControlTest, StatsOfOneAndOfAll) {
  EXPECT_EQ(client_.call("stats")["ports"].size(), 4U);
  const json one = client_.call("stats", {{"port", "t/db"}});
  ASSERT_EQ(one["ports"].size(), 1U);
  EXPECT_EQ(one["ports"][0]["rx_frames"], 0);
  EXPECT_EQ(one["workers"].size(), 1U);
  expect_refusal("stats", {{"port", "t/none"}}, RpcCode::invalid_params, "t/none");
  expect_refusal("stats", {{"prot", "t/db"}}, RpcCode::invalid_params, "\"port\"");
}

TEST_F(ControlTest, DropsAreThoseOfTheCode) {
  const json drops = client_.call("drops")["drops"];
  ASSERT_EQ(drops.size(), kDropReasons - 1);
  for (std::size_t i = 1; i < kDropReasons; ++i) EXPECT_EQ(drops[i - 1]["name"], kDropTexts[i].name);
}

TEST(ManPage, ListsEveryDropReason) {
  std::ifstream file(VSWITCH_SOURCE_DIR "/man/vswitchd.8");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  for (std::size_t i = 1; i < kDropReasons; ++i) {
    const std::string entry =
        ".It Cm " + std::string(kDropTexts[i].name) + "\n" + std::string(kDropTexts[i].explanation);
    EXPECT_NE(page.find(entry), std::string::npos) << entry;
  }
}

TEST_F(ControlTest, ReloadAnswersOrSaysWhyNot) {
  EXPECT_EQ(client_.call("reload")["untouched"], 3);
  expect_refusal("reload", json::object(), RpcCode::failed, "read tenants.json");
  EXPECT_EQ(client_.call("show")["ports"].size(), 3U);
}

TEST_F(ControlTest, TraceToSibling) {
  const json answer = trace({{"port", "t/web"}, {"dst", "02:00:00:00:00:02"}});
  EXPECT_EQ(answer["verdict"], "forward");
  ASSERT_EQ(answer["destinations"].size(), 1U);
  EXPECT_EQ(answer["destinations"][0]["port"], "t/db");
  EXPECT_EQ(answer["frame"]["src"], "02:00:00:00:00:01");
}

TEST_F(ControlTest, TraceToTheWireSaysTheTag) {
  const json answer = trace({{"port", "t/web"}, {"dst", "02:00:00:00:00:77"}});
  ASSERT_EQ(answer["destinations"].size(), 1U);
  EXPECT_EQ(answer["destinations"][0]["port"], "lan");
  EXPECT_NE(answer["destinations"][0]["steps"].dump().find("VLAN 100 is inserted"), std::string::npos) << answer;
}

TEST_F(ControlTest, TraceExpandsGroups) {
  const json answer = trace({{"port", "t/web"}, {"dst", "ff:ff:ff:ff:ff:ff"}});
  std::set<std::string> names;
  for (const json& destination : answer["destinations"]) names.insert(destination["port"]);
  EXPECT_EQ(names, (std::set<std::string>{"lan", "t/db"}));
}

TEST_F(ControlTest, TraceFromTheWire) {
  const json base = {{"port", "lan"}, {"src", "02:00:00:00:00:77"}, {"dst", "02:00:00:00:00:02"}};
  const json untagged = trace(base);
  EXPECT_EQ(untagged["drop"]["reason"], "unknown_destination");
  json tagged = base;
  tagged["vlan"] = 100;
  EXPECT_EQ(trace(tagged)["destinations"][0]["port"], "t/db");
  json nobody = base;
  nobody.erase("src");
  expect_refusal("trace", nobody, RpcCode::invalid_params, "\"src\"");
}

TEST_F(ControlTest, TraceDrops) {
  const json spoofed = trace({{"port", "t/web"}, {"src", "02:00:00:00:00:02"}, {"dst", "02:00:00:00:00:77"}});
  EXPECT_EQ(spoofed["verdict"], "drop");
  EXPECT_EQ(spoofed["drop"]["reason"], "spoofed_mac");
  const json tagged = trace({{"port", "t/web"}, {"vlan", 7}, {"dst", "02:00:00:00:00:02"}});
  EXPECT_EQ(tagged["drop"]["reason"], "vlan_not_allowed");
  const json priority = trace({{"port", "t/web"}, {"vlan", 0}, {"dst", "02:00:00:00:00:02"}});
  EXPECT_EQ(priority["verdict"], "forward");
  const json jumbo = trace({{"port", "t/web"}, {"length", 9000}, {"dst", "02:00:00:00:00:02"}});
  EXPECT_EQ(jumbo["destinations"][0]["drop"]["reason"], "too_long");
  const json train = trace({{"port", "t/web"}, {"length", 9000}, {"gso_size", 1448}, {"dst", "02:00:00:00:00:02"}});
  EXPECT_FALSE(train["destinations"][0].contains("drop")) << train;
}

TEST_F(ControlTest, TraceParametersAreChecked) {
  const json good = {{"port", "t/web"}, {"dst", "02:00:00:00:00:02"}};
  const auto with = [&](const char* key, const json& value) {
    json params = good;
    params[key] = value;
    return params;
  };
  for (const auto& [params, text] : std::vector<std::pair<json, std::string>>{{with("dst", "banana"), "\"dst\""},
                                                                              {with("dst", 5), "\"dst\""},
                                                                              {with("src", ""), "\"src\""},
                                                                              {with("vlan", 4095), "\"vlan\""},
                                                                              {with("vlan", -1), "\"vlan\""},
                                                                              {with("vlan", 1.5), "\"vlan\""},
                                                                              {with("ethertype", 5), "\"ethertype\""},
                                                                              {with("length", 13), "\"length\""},
                                                                              {with("length", 1e9), "\"length\""},
                                                                              {with("checksum", true), "\"checksum\""},
                                                                              {with("gso_size", 0), "\"gso_size\""},
                                                                              {with("color", "red"), "\"color\""},
                                                                              {with("port", "t/none"), "t/none"},
                                                                              {json::object(), "\"port\""}}) {
    expect_refusal("trace", params, RpcCode::invalid_params, text);
  }
  json train = with("gso_size", 1000);
  train["ethertype"] = 0x88b5;
  expect_refusal("trace", train, RpcCode::invalid_params, "gso_size");
}

TEST_F(ControlTest, RequestsThatAreNone) {
  RawClient raw(daemon_.path());
  EXPECT_EQ(raw.error_code("this is not JSON"), -32700);
  EXPECT_EQ(raw.error_code("\xff\xfe\x00\x01"), -32700);
  EXPECT_EQ(raw.error_code("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"show\""), -32700);
  EXPECT_EQ(raw.error_code("17"), -32600);
  EXPECT_EQ(raw.error_code("[]"), -32600);
  EXPECT_EQ(raw.error_code(R"({"id":1,"method":"show"})"), -32600);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":{},"method":"show"})"), -32600);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":1,"method":7})"), -32600);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":1,"method":"none"})"), -32601);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":1,"method":"show","params":[1]})"), -32602);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":1,"method":"show","params":{"x":1}})"), -32602);
  EXPECT_EQ(raw.error_code(std::string(100'000, '[')), -32600);
  EXPECT_EQ(raw.error_code(R"({"jsonrpc":"2.0","id":1,"method":"show","params":)" + std::string(50, '[') +
                           std::string(50, ']') + "}"),
            -32600);
  EXPECT_TRUE(raw.send(request(9, "version")));  // the connection still works
  EXPECT_EQ(json::parse(raw.line().value()).at("id"), 9);
}

TEST_F(ControlTest, NotificationsGetNoAnswer) {
  RawClient raw(daemon_.path());
  raw.send("{\"jsonrpc\":\"2.0\",\"method\":\"show\"}\n\n  \r\n{\"jsonrpc\":\"2.0\",\"method\":\"none\"}\n" +
           request(3, "version"));
  EXPECT_EQ(json::parse(raw.line().value()).at("id"), 3);
}

TEST_F(ControlTest, Batches) {
  RawClient raw(daemon_.path());
  raw.send(R"([{"jsonrpc":"2.0","id":"a","method":"version"},{"jsonrpc":"2.0","method":"show"},1])"
           "\n");
  const json answers = json::parse(raw.line().value());
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0]["id"], "a");
  EXPECT_EQ(answers[1]["error"]["code"], -32600);
  json large = json::array();
  for (int i = 0; i < 65; ++i) large.push_back(1);
  EXPECT_EQ(raw.error_code(large.dump()), -32600);
}

TEST_F(ControlTest, PipelinedRequestsAreAnsweredInOrder) {
  RawClient raw(daemon_.path());
  std::string all;
  for (int i = 0; i < 500; ++i) all += request(i, i % 2 == 0 ? "version" : "show");
  std::thread sender([&] { raw.send(all); });
  std::vector<int> ids;
  for (std::optional<std::string> line; ids.size() < 500 && (line = raw.line());) {
    ids.push_back(json::parse(*line).at("id"));
  }
  sender.join();
  ASSERT_EQ(ids.size(), 500U);
  for (int i = 0; i < 500; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], i);
}

TEST_F(ControlTest, AnswersFollowAfterTheClientStoppedTalking) {
  RawClient raw(daemon_.path());
  raw.send(request(1, "version") + request(2, "big"));
  raw.end_of_requests();
  EXPECT_EQ(json::parse(raw.line().value()).at("id"), 1);
  EXPECT_EQ(json::parse(raw.line().value()).at("result").get_ref<const std::string&>().size(), std::size_t{4} << 20);
  EXPECT_TRUE(raw.closed_by_daemon());
}

TEST_F(ControlTest, HugeMessageIsRefusedAndTheConnectionClosed) {
  RawClient raw(daemon_.path());
  const std::string block(65'536, 'x');
  std::size_t sent = 0;
  while (sent < (std::size_t{8} << 20) && raw.send(block)) sent += block.size();
  EXPECT_LT(sent, std::size_t{8} << 20);
  EXPECT_EQ(client_.call("version")["name"], "vswitchd");

  RawClient polite(daemon_.path());
  std::thread sender([&] { polite.send(std::string((1 << 20) + 1, 'x') + "\n"); });
  const auto answer = polite.line();
  sender.join();
  EXPECT_EQ(json::parse(answer.value()).at("error").at("code"), -32600);
}

TEST_F(ControlTest, HalfAMessageThenHangUp) {
  for (int i = 0; i < 50; ++i) {
    RawClient raw(daemon_.path());
    raw.send(request(1, "show").substr(0, static_cast<std::size_t>(i)));
  }
  EXPECT_EQ(client_.call("version")["name"], "vswitchd");
}

TEST_F(ControlTest, HangUpBeforeTheAnswer) {
  for (int i = 0; i < 50; ++i) {
    RawClient raw(daemon_.path());
    raw.send(request(1, "big") + request(2, "big"));
  }
  EXPECT_EQ(client_.call("version")["name"], "vswitchd");
}

TEST_F(ControlTest, ClientThatNeverReadsStallsNobody) {
  RawClient deaf(daemon_.path());
  for (int i = 0; i < 100; ++i) deaf.send(request(i, "big"));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(client_.call("version")["name"], "vswitchd");
}

TEST_F(ControlTest, GarbageStreamsStallNobody) {
  std::vector<std::unique_ptr<RawClient>> garbage;
  std::uint64_t state = 1;
  for (int i = 0; i < 20; ++i) {
    auto& raw = garbage.emplace_back(std::make_unique<RawClient>(daemon_.path()));
    std::string noise;
    for (int k = 0; k < 2000; ++k) {
      state = state * 6'364'136'223'846'793'005ULL + 1;
      noise.push_back(static_cast<char>(state >> 56));
    }
    raw->send(noise);
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client_.call("version")["name"], "vswitchd");
}

TEST_F(ControlTest, HundredClientsAtOnce) {
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(std::make_unique<RawClient>(daemon_.path()));
  for (int i = 0; i < 100; ++i) clients[static_cast<std::size_t>(i)]->send(request(i, "show"));
  for (int i = 99; i >= 0; --i) {
    const auto line = clients[static_cast<std::size_t>(i)]->line();
    ASSERT_TRUE(line.has_value()) << i;
    EXPECT_EQ(json::parse(*line).at("id"), i);
  }
}

TEST_F(ControlTest, OneClientTooManyIsTold) {
  std::vector<std::unique_ptr<RawClient>> clients;
  for (std::size_t i = 0; i < ControlServer::kMaxClients - 1; ++i) {  // client_ is one
    clients.push_back(std::make_unique<RawClient>(daemon_.path()));
    clients.back()->send(request(1, "version"));
    ASSERT_TRUE(clients.back()->line().has_value());
  }
  RawClient last(daemon_.path());
  EXPECT_EQ(json::parse(last.line().value()).at("error").at("message"), "too many clients; close some");
  clients.pop_back();
  const Nanoseconds deadline = monotonic_now() + 5 * kSecond;
  std::optional<std::string> answer;
  while (monotonic_now() < deadline && (!answer || json::parse(*answer).contains("error"))) {
    RawClient next(daemon_.path());
    next.send(request(1, "version"));
    answer = next.line();
  }
  EXPECT_EQ(json::parse(answer.value()).at("id"), 1);
}

TEST(ControlClientTest, NobodyListens) {
  const std::string path = ::testing::TempDir() + "nobody.sock";
  try {
    ControlClient client(path);
    ADD_FAILURE() << "connected";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ENOENT);
    EXPECT_NE(std::string(error.what()).find("is vswitchd running"), std::string::npos) << error.what();
  }
  EXPECT_THROW(ControlClient(std::string(200, 'x')), Error);
}

TEST(ControlClientTest, DaemonThatDoesNotAnswerOrIsSomethingElse) {
  const std::string path = ::testing::TempDir() + "mute-" + std::to_string(::getpid()) + ".sock";
  const Fd listener = unix_stream_socket();
  const UnixAddress address(path);
  ASSERT_EQ(::bind(listener.get(), address.generic(), address.size()), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ControlClient client(path, std::chrono::milliseconds(50));
  EXPECT_THROW(client.call("version"), Error);
  ControlClient other(path, std::chrono::seconds(5));
  Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  accepted = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_EQ(::send(accepted.get(), "220 hello\n", 10, 0), 10);
  EXPECT_THROW(other.call("version"), Error);
  ::unlink(path.c_str());
}

TEST(ControlServerTest, StaleSocketIsReplacedAndRemovedAtTheEnd) {
  const std::string path = ::testing::TempDir() + "stale-" + std::to_string(::getpid()) + ".sock";
  {
    const Fd left = unix_stream_socket();
    const UnixAddress address(path);
    ASSERT_EQ(::bind(left.get(), address.generic(), address.size()), 0);
  }
  {
    const Daemon daemon(path, example());
    EXPECT_EQ(ControlClient(path).call("version")["name"], "vswitchd");
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace vswitch
