/// Who gets a frame that comes from the wire, or from another queue pair.
#include <cerrno>

#include "tests/softnic/client/verbs_test.h"

namespace softnic_client {
namespace {

const Mac kMark = mac(0xffff);  // taken by no rule: shows that everything before it was steered

class Steering : public OnNic {
 protected:
  /// Sends from the wire. @return whether the kernel's netdev got it.
  bool kernel_gets(const Frame& frame) {
    wire.send(frame);
    wire.send(plain(kMark));
    Mac to{};
    std::copy_n(frame.begin(), to.size(), to.begin());
    return kernel.came_before(to, kMark);
  }
  Link kernel{Link::Where::kernel};
};

TEST_F(Steering, RuleTakesTheFrameFromTheKernel) {
  const auto taker = queue(mac(1));
  EXPECT_FALSE(kernel_gets(plain(mac(1), 7)));
  EXPECT_EQ(taker->receive_fill(), 7);
  EXPECT_TRUE(kernel_gets(plain(mac(2))));
  EXPECT_TRUE(taker->quiet());
  taker->flows.clear();
  EXPECT_TRUE(kernel_gets(plain(mac(1))));
}

TEST_F(Steering, DontTrapMulticastReachesEverybody) {
  const auto first = idle();
  const auto second = idle();
  for (RawQueue* each : {first.get(), second.get()}) each->take(Rule().to(group(1)).dont_trap());
  EXPECT_TRUE(kernel_gets(plain(group(1), 9)));
  EXPECT_EQ(first->receive_fill(), 9);
  EXPECT_EQ(second->receive_fill(), 9);
}

TEST_F(Steering, MulticastDefaultTakesWhatNoRuleTook) {
  const auto specific = queue(group(1));
  const auto rest = idle();
  Rule all(IBV_FLOW_ATTR_MC_DEFAULT);
  rest->take(all);
  EXPECT_FALSE(kernel_gets(plain(group(2), 4)));
  EXPECT_EQ(rest->receive_fill(), 4);
  EXPECT_FALSE(kernel_gets(plain(group(1), 5)));
  EXPECT_EQ(specific->receive_fill(), 5);
  EXPECT_TRUE(kernel_gets(plain(mac(2))));
  EXPECT_TRUE(rest->quiet());
}

TEST_F(Steering, AllDefaultTakesWhatNoRuleTook) {
  const auto specific = queue(mac(1));
  const auto rest = idle();
  Rule all(IBV_FLOW_ATTR_ALL_DEFAULT);
  rest->take(all);
  wire.send(plain(mac(1), 1));
  wire.send(plain(mac(2), 2));
  wire.send(plain(group(2), 3));
  EXPECT_EQ(specific->receive_fill(), 1);
  EXPECT_EQ(rest->receive_fill(), 2);
  EXPECT_EQ(rest->receive_fill(), 3);
  EXPECT_TRUE(specific->quiet());
  EXPECT_FALSE(kernel.receive(mac(2), 0));
}

TEST_F(Steering, SnifferGetsCopiesOfBothDirections) {
  const auto taker = queue(mac(1));
  const auto sniffer = idle();
  Rule all(IBV_FLOW_ATTR_SNIFFER);
  sniffer->take(all);
  EXPECT_FALSE(kernel_gets(plain(mac(1), 1)));
  EXPECT_EQ(taker->receive_fill(), 1);
  EXPECT_EQ(sniffer->receive_fill(), 1);
  EXPECT_EQ(sniffer->receive_fill(), 0);  // the mark, which the kernel has got as well
  EXPECT_EQ(taker->send(plain(mac(3), 2)), IBV_WC_SUCCESS);
  EXPECT_TRUE(wire.receive(mac(3)));
  EXPECT_EQ(sniffer->receive_fill(), 2);
}

TEST_F(Steering, VlanIsPartOfTheMatch) {
  const auto five = idle();
  const auto six = idle();
  five->take(Rule().to(mac(1), 5));
  six->take(Rule().to(mac(1), 6));
  EXPECT_FALSE(kernel_gets(tagged(plain(mac(1), 5), 5)));
  EXPECT_FALSE(kernel_gets(tagged(plain(mac(1), 6), 0xa006)));  // priority bits do not matter
  EXPECT_EQ(five->receive_fill(), 5);
  EXPECT_EQ(six->receive_fill(), 6);
  EXPECT_TRUE(kernel_gets(tagged(plain(mac(1)), 7)));
  EXPECT_TRUE(kernel_gets(plain(mac(1))));
}

TEST_F(Steering, TagOfTheRuleComesWithTheFrame) {
  QueueOptions options;
  options.completion_fields = std::uint64_t{IBV_WC_STANDARD_FLAGS} | IBV_WC_EX_WITH_FLOW_TAG;
  const auto taker = idle(options);
  taker->take(Rule().to(mac(1)).tag(0xabcdef));
  taker->take(Rule().to(mac(2)).tag(5));
  wire.send(plain(mac(1)));
  wire.send(plain(mac(2)));
  EXPECT_EQ(taker->receive(kPatienceMs).value().tag, 0xabcdefU);
  EXPECT_EQ(taker->receive(kPatienceMs).value().tag, 5U);
}

TEST_F(Steering, DropRuleDropsAndCounts) {
  const auto taker = queue(mac(1));
  const std::uint64_t before = counter("drop_rule");
  Rule rule;
  rule.to(mac(2)).drop();
  taker->take(rule);
  EXPECT_FALSE(kernel_gets(plain(mac(2))));
  EXPECT_TRUE(taker->quiet());
  EXPECT_EQ(counter("drop_rule"), before + 1);
}

TEST_F(Steering, LowerPriorityNumberIsAskedFirst) {
  const auto first = idle();
  const auto second = idle();
  second->take(Rule().to(mac(1)).priority(1));
  first->take(Rule().to(mac(1)).priority(0));
  wire.send(plain(mac(1), 1));
  EXPECT_EQ(first->receive_fill(), 1);
  EXPECT_TRUE(second->quiet());
  first->flows.clear();
  wire.send(plain(mac(1), 2));
  EXPECT_EQ(second->receive_fill(), 2);
}

TEST_F(Steering, FieldsThatMlx5DoesNotMatchAreRefused) {
  const auto taker = idle();
  const auto refuses = [&](Rule& rule) {
    errno = 0;
    return !rule.create(taker->qp.get()) && errno == EOPNOTSUPP;
  };
  ibv_flow_spec_ipv4_ext v4{};
  v4.mask.ttl = 0xff;
  Rule ttl;
  EXPECT_TRUE(refuses(ttl.add(v4, IBV_FLOW_SPEC_IPV4_EXT)));
  v4.mask.ttl = 0;
  v4.mask.flags = 2;
  Rule flags;
  EXPECT_TRUE(refuses(flags.add(v4, IBV_FLOW_SPEC_IPV4_EXT)));
  v4.mask.flags = 0;
  v4.mask.tos = v4.mask.proto = 0xff;
  Rule tos;
  EXPECT_TRUE(tos.add(v4, IBV_FLOW_SPEC_IPV4_EXT).create(taker->qp.get()));
  ibv_flow_spec_ipv6 v6{};
  v6.mask.hop_limit = 0xff;
  Rule hops;
  EXPECT_TRUE(refuses(hops.add(v6, IBV_FLOW_SPEC_IPV6)));
  v6.mask.hop_limit = 0;
  v6.mask.traffic_class = v6.mask.next_hdr = 0xff;
  v6.mask.flow_label = htobe32(0xfffff);
  Rule label;
  EXPECT_TRUE(label.add(v6, IBV_FLOW_SPEC_IPV6).create(taker->qp.get()));
}

TEST_F(Steering, PortsOfUdpChooseTheQueue) {
  const auto dns = idle();
  const auto rest = queue(mac(1));
  ibv_flow_spec_tcp_udp ports{};
  ports.val.dst_port = htobe16(53);
  ports.mask.dst_port = 0xffff;
  rest->flows.clear();
  dns->take(Rule().to(mac(1)).add(ports, IBV_FLOW_SPEC_UDP));
  rest->take(Rule().to(mac(1)).priority(1));
  Flow flow;
  flow.destination_port = 53;
  wire.send(udp(mac(1), flow, Frame(20, 1)));
  flow.destination_port = 54;
  wire.send(udp(mac(1), flow, Frame(20, 2)));
  EXPECT_EQ(dns->receive_fill(), 1);
  EXPECT_EQ(rest->receive_fill(), 2);
}

TEST_F(Steering, ContextsOfOneProcessSeeEachOthersFrames) {
  const Handle<ibv_context> other = open_device();
  const auto here = queue(mac(1));
  RawQueue there(other.get());
  ASSERT_EQ(there.start(), 0);
  there.take(mac(2));
  EXPECT_EQ(here->send(plain(mac(2), 3)), IBV_WC_SUCCESS);
  EXPECT_EQ(there.receive_fill(), 3);
  EXPECT_EQ(there.send(plain(mac(1), 4)), IBV_WC_SUCCESS);
  EXPECT_EQ(here->receive_fill(), 4);
  EXPECT_EQ(here->send(plain(mac(3))), IBV_WC_SUCCESS);
  EXPECT_FALSE(wire.came_before(mac(2), mac(3)));  // unicast that a rule took stays inside
  EXPECT_EQ(here->send(plain(mac(1), 5)), IBV_WC_SUCCESS);
  EXPECT_TRUE(here->quiet());  // nobody hears himself
}

TEST_F(Steering, DropRuleDropsWhatIsSentInsideToo) {
  const Handle<ibv_context> other = open_device();
  const auto sender = idle();
  Rule rule;
  sender->take(rule.to(mac(2)).drop());
  const std::uint64_t before = counter("drop_rule");
  EXPECT_EQ(sender->send(plain(mac(2))), IBV_WC_SUCCESS);
  EXPECT_EQ(sender->send(plain(mac(3))), IBV_WC_SUCCESS);
  EXPECT_FALSE(wire.came_before(mac(2), mac(3)));
  EXPECT_EQ(counter("drop_rule"), before + 1);
}

TEST_F(Steering, RulesGoWithTheirContext) {
  {
    const Handle<ibv_context> other = open_device();
    auto* there = new RawQueue(other.get());  // leaked on purpose: the device is closed under its queue
    ASSERT_EQ(there->start(), 0);
    there->take(mac(2));
    EXPECT_FALSE(kernel_gets(plain(mac(2))));
  }
  EXPECT_TRUE(eventually([&] { return kernel_gets(plain(mac(2))); }));
}

}  // namespace
}  // namespace softnic_client
