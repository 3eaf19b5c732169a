#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>

#include "config/check_system.h"
#include "config/diff.h"
#include "config/load.h"
#include "config/nearest.h"
#include "config/schema_check.h"
#include "config/schema_text.h"
#include "config/stable_mac.h"
#include "vswitch/base/error.h"
#include "vswitch/base/fd.h"

namespace vswitch {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kSource = VSWITCH_SOURCE_DIR;
const fs::path kBad = kSource / "tests/unit/config_bad";

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// Runs `body` in a thread of its own, whose namespaces, credentials and cached machine identity die with it.
void in_thread(const std::function<void()>& body) { std::thread(body).join(); }

/// Makes the calling thread see a machine with the identity `id`; none if that is empty.
void pretend_machine(const std::string& id) {
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::mount("tmpfs", "/etc", "tmpfs", 0, nullptr), 0);
  if (!id.empty()) std::ofstream("/etc/machine-id") << id << "\n";
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "vswitch-config-XXXXXX").native();
    if (::mkdtemp(name.data()) == nullptr) throw_errno("mkdtemp", name);
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { fs::remove_all(path_); }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

json minimal() {
  return json::parse(R"({
    "uplinks": {"lan": {"netdev": "eth0"}},
    "tenants": {"red": {"ports": {
      "tap": {"uplink": "lan", "mac": "02:00:00:00:00:12", "attach": {"kind": "tap", "name": "tap0"}},
      "web": {"uplink": "lan", "mac": "02:00:00:00:00:11", "attach": {"kind": "ring", "socket": "/run/web.sock"}}}}}})");
}

SwitchSpec load(const json& value) { return load_text(value.dump(), "test"); }

// ---- bad configurations: one file each, with the exact text that the user gets ----

std::vector<std::string> bad_names() {
  std::set<std::string> names;  // of either file, so that neither can be forgotten
  for (const auto& entry : fs::directory_iterator(kBad)) names.insert(entry.path().stem());
  return {names.begin(), names.end()};
}

class ConfigBad : public testing::TestWithParam<std::string> {};

TEST_P(ConfigBad, SaysWhatIsWrong) {
  const std::string text = read_text(kBad / (GetParam() + ".json"));
  const std::string expected = read_text(kBad / (GetParam() + ".expected"));
  EXPECT_EQ(error_of([&] { (void)load_text(text, GetParam() + ".json"); }) + "\n", expected);
}

INSTANTIATE_TEST_SUITE_P(Files, ConfigBad, testing::ValuesIn(bad_names()),
                         [](const auto& named) { return named.param; });

TEST(ConfigBadFiles, AreMany) { EXPECT_GE(bad_names().size(), 120U); }

// ---- good configurations ----

TEST(ConfigLoad, EmptySwitch) { EXPECT_EQ(load_text(R"({"uplinks": {}, "tenants": {}})", "test"), SwitchSpec{}); }

TEST(ConfigLoad, EveryKey) {
  const SwitchSpec spec = load_text(R"({
    "workers": {"cpus": [3, 1], "idle": "poll"},
    "uplinks": {"wan": {"netdev": "eth1", "driver": "af_packet", "direct": false}, "lan": {"netdev": "eth0"}},
    "tenants": {
      "red": {"ports": {
        "web": {"uplink": "lan", "type": "macvlan", "mode": "source", "mac": "02:00:00:00:00:AA",
                "macs": ["02:00:00:00:00:ab"], "vlan": 4094, "mtu": 9000, "trusted": true,
                "source_macs": ["02:00:00:00:00:01"], "nodst": true, "ips": ["198.18.0.11/24", "fd00::11"],
                "attach": {"kind": "ring", "socket": "/run/web.sock", "uid": 0, "gid": 4294967294, "token": "x",
                           "queues": 16, "ring_frames": 32768, "arena_bytes": 67108864}}}},
      "blue": {"ports": {
        "db": {"uplink": "wan", "mode": "passthru", "mac": "02:00:00:00:00:bb", "vlan": 1, "mtu": 1500, "offloads": false,
               "gro": false, "ips": ["198.18.0.12/24"],
               "attach": {"kind": "tap", "pid": 17, "name": "eth0", "routes": [
                 {"to": "203.0.113.0/24"}, {"to": "default", "via": "203.0.113.1"},
                 {"to": "fd00:1::/32", "via": "fe80::1"}, {"to": "198.51.100.7", "via": "198.18.0.1"}]}},
        "a": {"uplink": "wan", "mode": "vepa", "mac": "02:00:00:00:00:bb", "vlan": 2,
              "attach": {"kind": "tap", "netns": "/run/netns/blue", "name": "eth1"}}}}}})",
                                    "test");
  EXPECT_EQ(spec.workers, (WorkersSpec{{3, 1}, Idle::poll}));
  EXPECT_EQ(spec.uplinks, (std::vector<UplinkSpec>{{"lan", "eth0", UplinkDriver::automatic, true},
                                                   {"wan", "eth1", UplinkDriver::af_packet, false}}));
  ASSERT_EQ(spec.ports.size(), 3U);
  EXPECT_EQ(spec.ports[0].full_name(), "blue/a");

  PortSpec db;
  db.tenant = "blue", db.name = "db", db.uplink = "wan", db.mode = Mode::passthru, db.vlan = 1, db.mtu = 1500;
  db.mac = *Mac::parse("02:00:00:00:00:bb");
  db.ips = {*IpPrefix::parse("198.18.0.12/24")};
  db.attach = TapAttachSpec{"/proc/17/ns/net",
                            "eth0",
                            {{IpPrefix::parse("203.0.113.0/24"), std::nullopt},
                             {std::nullopt, IpAddress::parse("203.0.113.1")},
                             {IpPrefix::parse("fd00:1::/32"), IpAddress::parse("fe80::1")},
                             {IpPrefix::parse("198.51.100.7/32"), IpAddress::parse("198.18.0.1")}}};
  db.offloads = {}, db.gro = false;
  EXPECT_EQ(spec.ports[1], db);

  PortSpec web;
  web.tenant = "red", web.name = "web", web.uplink = "lan", web.mode = Mode::source, web.vlan = 4094, web.mtu = 9000;
  web.mac = *Mac::parse("02:00:00:00:00:aa");
  web.macs = {*Mac::parse("02:00:00:00:00:ab")};
  web.trusted = true, web.nodst = true;
  web.source_macs = {*Mac::parse("02:00:00:00:00:01")};
  web.ips = {*IpPrefix::parse("198.18.0.11/24"), *IpPrefix::parse("fd00::11/128")};
  web.attach = RingAttachSpec{"/run/web.sock", 0, 4294967294U, "x", 16, 32768, 64 << 20};
  EXPECT_EQ(spec.ports[2], web);
}

TEST(ConfigLoad, OffloadsOneByOne) {
  const auto read = [](const char* offloads) {
    json value = minimal();
    value["tenants"]["red"]["ports"]["web"]["offloads"] = json::parse(offloads);
    return load(value).ports.at(1).offloads;
  };
  EXPECT_EQ(read("true"), OffloadCaps::all());
  EXPECT_EQ(read("false"), OffloadCaps{});
  EXPECT_EQ(read("{}"), OffloadCaps::all());
  EXPECT_EQ(read(R"({"uso": false, "tso6": false})"),
            (OffloadCaps{.checksum = true, .tso4 = true, .tso6 = false, .ecn = true, .uso = false}));
  EXPECT_EQ(read(R"({"checksum": false})"), OffloadCaps{});
  EXPECT_EQ(read(R"({"checksum": false, "tso4": false})"), OffloadCaps{});
  EXPECT_EQ(read(R"({"tso4": false, "tso6": false, "uso": false})"), OffloadCaps{.checksum = true})
      << "nothing for ecn";
}

TEST(ConfigLoad, SameAddressesOnOtherVlanOrUplink) {
  json value = minimal();
  value["uplinks"]["wan"]["netdev"] = "eth1";
  json port = value["tenants"]["red"]["ports"]["web"];
  port["mode"] = "passthru";
  port["ips"] = {"198.18.0.11/24"};
  const auto add = [&](const char* name) {
    port["attach"]["socket"] = std::string("/run/") + name;
    value["tenants"]["red"]["ports"][name] = port;
  };
  port["vlan"] = 5;
  add("vlan5");
  port["vlan"] = 6;
  add("vlan6");
  port["uplink"] = "wan";
  add("wan6");
  EXPECT_EQ(load(value).ports.size(), 5U);
}

/// Adds to `value` every key with a "default" in `node` of the schema.
void add_defaults(const json& schema, const json& unresolved, json& value) {
  json node = unresolved;
  if (node.contains("$ref")) node = schema.at(json::json_pointer(node["$ref"].get<std::string>().substr(1)));
  for (const json& branch : node.value("oneOf", json::array())) {
    const json chosen = schema.at(json::json_pointer(branch["$ref"].get<std::string>().substr(1)));
    if (chosen["properties"]["kind"]["const"] == value["kind"]) node = chosen;
  }
  if (!value.is_object()) return;
  const json properties = node.value("properties", json::object());
  for (const auto& [key, property] : properties.items()) {
    if (property.contains("default") && !value.contains(key)) value[key] = property["default"];
    if (property.contains("$ref") && key == "workers") value[key] = json::object();
    if (value.contains(key)) add_defaults(schema, property, value[key]);
  }
  if (!node.contains("additionalProperties") || !node["additionalProperties"].is_object()) return;
  for (auto& [key, member] : value.items()) add_defaults(schema, node["additionalProperties"], member);
}

TEST(ConfigLoad, DefaultsAreThoseOfTheSchema) {
  const json schema = json::parse(schema_text());
  json value = minimal();
  add_defaults(schema, schema, value);
  // "nodst" may be written in mode source only, at its default too.
  for (auto& [name, port] : value["tenants"]["red"]["ports"].items()) port.erase("nodst");
  EXPECT_EQ(value["workers"]["idle"], "adaptive");
  EXPECT_EQ(value["tenants"]["red"]["ports"]["web"]["attach"]["ring_frames"], 1024);
  EXPECT_EQ(value["tenants"]["red"]["ports"]["tap"]["offloads"], true);
  EXPECT_EQ(load(value), load(minimal()));
}

TEST(ConfigLoad, ThousandsOfPorts) {
  json value = minimal();
  json& ports = value["tenants"]["red"]["ports"];
  constexpr int kPorts = 4096;
  for (int i = 0; i < kPorts; ++i) {
    Mac mac{{2, 1, 0, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}};
    json port = ports["web"];
    port["mac"] = mac.to_string();
    port["attach"]["socket"] = "/run/" + std::to_string(i);
    ports["p" + std::to_string(i)] = port;
  }
  EXPECT_EQ(load(value).ports.size(), kPorts + 2U);
}

TEST(ConfigLoad, Files) {
  const TemporaryDirectory directory;
  const fs::path file = directory.path() / "tenants.json";
  EXPECT_EQ(error_of([&] { (void)load_file(file); }),
            "open configuration " + file.native() + ": No such file or directory; name a readable tenants.json");
  std::ofstream(file) << minimal();
  EXPECT_EQ(load_file(file), load(minimal()));
  EXPECT_EQ(error_of([&] { (void)load_file(directory.path()); }),
            "read configuration " + directory.path().native() + ": Is a directory; name a readable tenants.json");
  std::ofstream(file) << "{";
  EXPECT_TRUE(error_of([&] { (void)load_file(file); }).starts_with("configuration " + file.native() + ": 1 problem\n"));
  fs::resize_file(file, (16U << 20) + 1);
  EXPECT_EQ(error_of([&] { (void)load_file(file); }),
            "read configuration " + file.native() + ": File too large; 16 MiB is the limit");
}

// ---- MAC addresses that were left out ----

TEST(StableMac, DependsOnMachineAndNameOnly) {
  const std::string machine = "0123456789abcdef0123456789abcdef";
  std::string again[2];
  for (std::string& mac : again) {
    in_thread([&] {
      pretend_machine(machine);
      mac = stable_mac("red/web").to_string();
      EXPECT_NE(stable_mac("red/web1"), stable_mac("red/web2"));
      EXPECT_NE(stable_mac("a-name-of-sixteen-and-more/web"), stable_mac("a-name-of-sixteen-and-more/db"));
      const Mac derived = stable_mac("blue/web");
      EXPECT_EQ(derived.bytes[0] & 3, 2) << "locally administered, unicast";
    });
  }
  // Tenants keep their address over restarts and releases of the switch: this one never changes.
  EXPECT_EQ(again[0], "ee:d5:78:e5:86:c2");
  EXPECT_EQ(again[1], again[0]);
  in_thread([&] {
    pretend_machine("fedcba9876543210fedcba9876543210");
    EXPECT_NE(stable_mac("red/web").to_string(), again[0]);
  });
}

TEST(StableMac, FillsInWhatIsLeftOut) {
  in_thread([] {
    pretend_machine("0123456789abcdef0123456789abcdef");
    json value = minimal();
    value["tenants"]["red"]["ports"]["web"].erase("mac");
    EXPECT_EQ(load(value).ports[1].mac, stable_mac("red/web"));
  });
}

TEST(StableMac, WithoutMachineIdentitySaysWhatToDo) {
  in_thread([] {
    pretend_machine("");
    json value = minimal();
    EXPECT_NO_THROW((void)load(value));
    value["tenants"]["red"]["ports"]["web"].erase("mac");
    EXPECT_EQ(
        error_of([&] { (void)load(value); }),
        "configuration test: 1 problem\n"
        "test:1:122: /tenants/red/ports/web: expected the key \"mac\", found none, and cannot derive a MAC address "
        "from /etc/machine-id: No such file or directory; set \"mac\" or create the file with "
        "systemd-machine-id-setup(1)");
  });
}

// ---- the schema ----

TEST(ConfigSchema, IsTheFile) { EXPECT_EQ(schema_text(), read_text(kSource / "config/tenants.schema.json")); }

TEST(ConfigSchema, ExamplesOfTheManualAreGood) {
  in_thread([] {
    pretend_machine("0123456789abcdef0123456789abcdef");
    const json schema = json::parse(schema_text());
    ASSERT_FALSE(schema["examples"].empty());
    for (const json& example : schema["examples"]) EXPECT_EQ(load(example).ports.size(), 3U);
  });
}

/// Every object below "properties" must say what it is for: the manual is made of it.
void expect_described(const json& schema, const json& node, const std::string& place) {
  const json properties = node.value("properties", json::object());
  for (const auto& [key, property] : properties.items()) {
    const json resolved = property.contains("$ref")
                              ? schema.at(json::json_pointer(property["$ref"].get<std::string>().substr(1)))
                              : property;
    EXPECT_TRUE(property.contains("description") || resolved.contains("description")) << place << "/" << key;
  }
}

TEST(ConfigSchema, DescribesEveryKey) {
  const json schema = json::parse(schema_text());
  expect_described(schema, schema, "");
  for (const auto& [name, definition] : schema["definitions"].items()) expect_described(schema, definition, name);
}

TEST(ConfigSchema, ReportsConstraintsItCannotExplain) {
  Problems problems;
  check_schema(json::parse(R"({"properties": {"a": {"multipleOf": 2}}})"), json::parse(R"({"a": 3})"), problems);
  EXPECT_TRUE(problems.within("/a"));
}

TEST(ConfigNearest, SuggestsSmallMistakesOnly) {
  const std::vector<std::string> known = {"uplinks", "tenants", "mac", "vlan"};
  EXPECT_EQ(nearest("uplink", known), "uplinks");
  EXPECT_EQ(nearest("tenatns", known), "tenants");
  EXPECT_EQ(nearest("VLAN", known), "vlan");
  EXPECT_EQ(nearest("mca", known), "mac");
  EXPECT_EQ(nearest("xyz", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest(std::string(1 << 20, 'u'), known), "");
}

// ---- differences ----

TEST(ConfigDiff, SameIsEmpty) {
  const SwitchSpec spec = load(minimal());
  EXPECT_TRUE(diff(spec, spec).empty());
  EXPECT_TRUE(diff({}, {}).empty());
}

TEST(ConfigDiff, AddedAndRemoved) {
  const SwitchSpec before = load(minimal());
  json value = minimal();
  value["uplinks"]["wan"]["netdev"] = "eth1";
  value["tenants"]["blue"]["ports"]["web"] = value["tenants"]["red"]["ports"]["web"];
  value["tenants"]["red"]["ports"].erase("web");
  const SwitchSpec after = load(value);
  const SpecDiff there = diff(before, after);
  ASSERT_EQ(there.uplinks.size(), 1U);
  EXPECT_TRUE(there.uplinks[0].added());
  EXPECT_EQ(there.uplinks[0].after->name, "wan");
  ASSERT_EQ(there.ports.size(), 2U);
  EXPECT_TRUE(there.ports[0].added() && there.ports[1].removed());
  EXPECT_EQ(there.ports[0].after->full_name(), "blue/web");
  EXPECT_EQ(there.ports[1].before->full_name(), "red/web");
  EXPECT_FALSE(there.workers);
  const SpecDiff back = diff(after, before);
  ASSERT_EQ(back.ports.size(), 2U);
  EXPECT_TRUE(back.ports[0].removed() && back.ports[1].added());
  EXPECT_TRUE(back.uplinks.at(0).removed());
}

TEST(ConfigDiff, Workers) {
  SwitchSpec other;
  other.workers.idle = Idle::poll;
  EXPECT_TRUE(diff({}, other).workers);
  EXPECT_FALSE(diff({}, other).empty());
}

TEST(ConfigDiff, UplinkChangeReopens) {
  json value = minimal();
  value["uplinks"]["lan"]["driver"] = "af_packet";
  value["uplinks"]["lan"]["direct"] = false;
  const SwitchSpec before = load(minimal());
  const SwitchSpec after = load(value);
  const SpecDiff found = diff(before, after);
  ASSERT_EQ(found.uplinks.size(), 1U);
  EXPECT_TRUE(found.uplinks[0].reopen);
  EXPECT_EQ(found.uplinks[0].keys, (std::vector<std::string>{"driver", "direct"}));
  EXPECT_TRUE(found.ports.empty());
}

struct PortEdit {
  const char* key;
  const char* value;
  bool reopen;
};
class ConfigDiffPort : public testing::TestWithParam<PortEdit> {};

TEST_P(ConfigDiffPort, SaysWhetherATableIsEnough) {
  json value = minimal();
  value["uplinks"]["wan"]["netdev"] = "eth1";
  json& port = value["tenants"]["red"]["ports"]["web"];
  port["mode"] = "source";
  port["source_macs"] = {"02:00:00:00:00:31"};
  const SwitchSpec before = load(value);
  port[GetParam().key] = json::parse(GetParam().value);
  if (port["mode"] != "source") port.erase("source_macs");
  const SwitchSpec after = load(value);
  const SpecDiff found = diff(before, after);
  ASSERT_EQ(found.ports.size(), 1U);
  EXPECT_EQ(found.ports[0].reopen, GetParam().reopen);
  EXPECT_EQ(found.ports[0].keys[0], GetParam().key);
  EXPECT_EQ(found.ports[0].before, &before.ports[1]);
  EXPECT_EQ(found.ports[0].after, &after.ports[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Keys, ConfigDiffPort,
    testing::Values(PortEdit{"uplink", R"("wan")", true}, PortEdit{"mode", R"("private")", false},
                    PortEdit{"mac", R"("02:00:00:00:00:99")", true},
                    PortEdit{"macs", R"(["02:00:00:00:00:99"])", false}, PortEdit{"vlan", "7", true},
                    PortEdit{"mtu", "1400", true}, PortEdit{"trusted", "true", false},
                    PortEdit{"source_macs", R"(["02:00:00:00:00:32"])", false}, PortEdit{"nodst", "true", false},
                    PortEdit{"ips", R"(["198.18.0.11/24"])", true}, PortEdit{"offloads", "false", false},
                    PortEdit{"gro", "false", false},
                    PortEdit{"attach", R"({"kind": "ring", "socket": "/run/web.sock", "queues": 2})", true}),
    [](const auto& named) { return std::string(named.param.key); });

// ---- the running system ----

/// A TAP (Ethernet) or TUN (no Ethernet) device that lives as long as this, in the calling thread's namespace.
Fd make_netdev(const char* name, short flags) {
  Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!fd.valid()) throw_errno("open", "/dev/net/tun");
  ifreq request{};
  std::string_view(name).copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags | IFF_NO_PI);
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) throw_errno("TUNSETIFF", name);
  return fd;
}

TEST(CheckSystem, Uplinks) {
  in_thread([] {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    const Fd tap = make_netdev("wire0", IFF_TAP);
    const Fd tun = make_netdev("notether", IFF_TUN);
    SwitchSpec spec;
    spec.uplinks = {{"a", "wire0", UplinkDriver::automatic}};
    EXPECT_EQ(check_system(spec), std::vector<std::string>{});
    spec.uplinks = {{"a", "lo", UplinkDriver::automatic},
                    {"b", "notether", UplinkDriver::automatic},
                    {"c", "wire1", UplinkDriver::automatic},
                    {"d", "office", UplinkDriver::automatic}};
    EXPECT_EQ(
        check_system(spec),
        (std::vector<std::string>{
            R"(/uplinks/a/netdev: expected an Ethernet device, found "lo", which is a loopback device)",
            R"(/uplinks/b/netdev: expected an Ethernet device, found "notether", which is of another type)",
            R"(/uplinks/c/netdev: expected a network device, found "wire1": No such device; did you mean "wire0"?)",
            R"(/uplinks/d/netdev: expected a network device, found "office": No such device; see ip-link(8))"}));
  });
}

TEST(CheckSystem, Cpus) {
  cpu_set_t allowed;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  int cpu = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) ++cpu;
  SwitchSpec spec;
  spec.workers.cpus = {cpu, CPU_SETSIZE - 1};
  EXPECT_EQ(check_system(spec), std::vector<std::string>{
                                    "/workers/cpus/1: expected a CPU that is online and allowed to this process, found "
                                    "CPU 1023; see lscpu(1)"});
  cpu_set_t afterwards;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(afterwards), &afterwards), 0);
  EXPECT_TRUE(CPU_EQUAL(&allowed, &afterwards));
}

SwitchSpec with_attach(const std::vector<AttachSpec>& attaches) {
  SwitchSpec spec;
  for (const AttachSpec& attach : attaches) {
    PortSpec port;
    port.tenant = "red";
    port.name = std::string(1, static_cast<char>('a' + spec.ports.size()));
    port.attach = attach;
    spec.ports.push_back(port);
  }
  return spec;
}

AttachSpec ring(const fs::path& socket) {
  RingAttachSpec spec;
  spec.socket = socket;
  return spec;
}

AttachSpec tap(const std::string& netns, const std::string& name) { return TapAttachSpec{netns, name, {}}; }

TEST(CheckSystem, SocketDirectories) {
  const TemporaryDirectory directory;
  const std::string base = directory.path();
  std::ofstream(base + "/file") << "x";
  const SwitchSpec spec = with_attach({ring(base + "/a.sock"), ring(base + "/none/b.sock"), ring(base + "/file/c.sock"),
                                       ring(base + "/file"), ring(base + "/run/e.sock")});
  EXPECT_EQ(check_system(spec, base + "/run"),
            (std::vector<std::string>{"/tenants/red/ports/b/attach/socket: expected a directory at \"" + base +
                                          "/none\", found: No such file or directory; create it",
                                      "/tenants/red/ports/c/attach/socket: expected a directory at \"" + base +
                                          "/file\", found another kind of file",
                                      "/tenants/red/ports/d/attach/socket: expected a socket or nothing at \"" + base +
                                          "/file\", found another kind of file"}));
  in_thread([&] {
    // The system call, not the library's function: that would change all threads.
    ASSERT_EQ(::syscall(SYS_setresuid, 65534, 65534, 65534), 0);
    EXPECT_EQ(check_system(with_attach({ring("/usr/a.sock")})),
              std::vector<std::string>{"/tenants/red/ports/a/attach/socket: expected a directory in which this process "
                                       "may create files, found \"/usr\": Permission denied"});
  });
}

TEST(CheckSystem, Namespaces) {
  const TemporaryDirectory directory;
  const std::string file = directory.path() / "file";
  std::ofstream(file.c_str()) << "x";
  const std::string mine = "/proc/" + std::to_string(::getpid()) + "/ns/net";
  const SwitchSpec spec = with_attach({tap("", "tap0"), tap(mine, "tap0"), tap(mine, "tap1"),
                                       tap("/proc/self/ns/net", "tap1"), tap(file, "tap0"), tap(file + ".none", "tap0"),
                                       tap("/proc/self/ns/mnt", "tap0"), tap("/proc/4194304/ns/net", "tap0")});
  EXPECT_EQ(
      check_system(spec),
      (std::vector<std::string>{
          "/tenants/red/ports/d/attach: expected a name that is new in \"/proc/self/ns/net\", found \"tap1\", which "
          "port \"red/c\" has: both paths are the same namespace",
          "/tenants/red/ports/e/attach: expected a network namespace at \"" + file + "\", found another kind of file",
          "/tenants/red/ports/f/attach: expected a network namespace at \"" + file +
              ".none\", found: No such file or directory; create it with ip-netns(8)",
          "/tenants/red/ports/g/attach: expected a network namespace at \"/proc/self/ns/mnt\", found a namespace "
          "of another type",
          "/tenants/red/ports/h/attach: expected the network namespace of a running process, found no process "
          "4194304"}));
}

}  // namespace
}  // namespace vswitch
