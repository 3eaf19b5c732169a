"""The programs of test_clients.py on a NIC that is not mlx5: a drop-in libibverbs.so.1."""

import errno
import functools
import unittest
from unittest import mock

import test_clients
import test_verbs
from nic import SoftNic
from lab import run

NEUTRAL = {"name": "neutral0", "neutral": True}


class Devinfo(test_clients.Devinfo):
    KIND = NEUTRAL


class Lacking(test_clients.Lacking):
    KIND = NEUTRAL


class Perftest(test_clients.Perftest):
    KIND = NEUTRAL
    test_bandwidth_inline = None  # perftest lets only vendors that it knows do that


class SlowReads(Perftest):
    """The same on a NIC that reads work requests late."""

    OPTIONS = ("--dma-delay-us", "200")


class RdmaCore(test_clients.RdmaCore):
    KIND = NEUTRAL
    # test_qp: those of raw packet queue pairs; libmlx5 takes some of other kinds.
    MODULES = {"test_device": 10, "test_cq": 3, "test_cqex": 2, "test_mr": 1, "test_pd": 4, "test_qp": 5,
               "test_flow": 5, "test_rss_traffic": 1}


class OnNeutralNic(test_verbs.OnNic):
    # What only mlx5 does: libmlx5 rounds completion queues up, mlx5 matches no TTL, and Direct Verbs.
    LEFT_OUT = "Completion.OverrunKillsTheQueuePair:Steering.FieldsThatMlx5DoesNotMatchAreRefused"

    @classmethod
    def setUpClass(cls):
        with mock.patch.object(test_verbs, "SoftNic", functools.partial(SoftNic, **NEUTRAL)):
            super().setUpClass()

    def suites(self, *names):
        wanted = ":".join(f"{name}.*" for name in names) + "-" + self.LEFT_OUT
        command = self.nic.command(test_verbs.CLIENT, f"--gtest_filter={wanted}", "--gtest_brief=1")
        done = run(*command, env=self.environment, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-3000:])
        self.assertNotIn(" 0 tests", done.stdout)


class Verbs(OnNeutralNic):
    def test_data_path(self):
        self.suites("Steering", "Completion", "Offload")

    def test_set_up(self):
        self.suites("Memory", "MemoryLimit", "Destroying", "Processes")

    def test_faults(self):
        self.suites("Fault", "Broken", "LinkState")

    def test_a_thousand_queue_pairs(self):
        self.suites("Many")


class Calm(OnNeutralNic):
    """Completions at once, one by one; nothing is overwritten."""

    OPTIONS = ("--seed", "0", "--poison", "none")

    def test_suites(self):
        self.suites("Steering", "Completion", "Memory")


class LateReads(OnNeutralNic):
    OPTIONS = ("--dma-delay-us", "2000", "--seed", "7")

    def test_suites(self):
        self.suites("Completion", "Memory", "Broken", "Destroying")


STRICT = """
from pyverbs.cq import CQ, CqInitAttrEx, CQEX
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.qp import QP, QPCap, QPInitAttr, QPInitAttrEx, QPAttr, QPEx
from pyverbs.wr import SGE, SendWR
import pyverbs.enums as e

context = Context(name="neutral0")
pd, cq = PD(context), CQ(context, 10)
mr = MR(pd, 64, e.IBV_ACCESS_LOCAL_WRITE)
cap = QPCap(max_send_wr=4, max_recv_wr=0, max_inline_data=64)
qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RAW_PACKET, scq=cq, rcq=cq, cap=cap), QPAttr(port_num=1))
piece = SGE(mr.buf, 64, mr.lkey)
def post(flags):
    try:
        qp.post_send(SendWR(num_sge=1, sg=[piece], send_flags=flags))
        return 0
    except PyverbsRDMAError as error:
        return error.error_code
print("unsignaled", *(post(0) for _ in range(5)))
qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
print("reset", post(0))
qp.to_rts(QPAttr(port_num=1))
print("signaled", *(post(e.IBV_SEND_SIGNALED if i == 3 else 0) for i in range(4)))
while cq.poll()[0] == 0:
    pass
print("polled", post(e.IBV_SEND_INLINE))
ops = QPInitAttrEx(qp_type=e.IBV_QPT_RAW_PACKET, scq=cq, rcq=cq, cap=cap, pd=pd,
                   comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                   send_ops_flags=e.IBV_QP_EX_WITH_SEND)
new = QPEx(context, ops, QPAttr(port_num=1))
new.wr_start()
new.wr_flags = e.IBV_SEND_SIGNALED
new.wr_send()
new.wr_set_inline_data(mr.buf, 64)
new.wr_complete()
while cq.poll()[0] == 0:
    pass
print("wr_*", "sent")
new.wr_send()
"""


class Strict(test_clients.Cabled):
    """What a driver refuses, and what it does not see but real hardware would choke on."""

    KIND = NEUTRAL

    def test_places_and_order_of_calls(self):
        said = self.nic_a.run(test_clients.SYSTEM_PYTHON, "-B", "-c", STRICT)
        nomem, invalid = errno.ENOMEM, errno.EINVAL
        self.assertEqual(said.stdout.splitlines(), [
            f"unsignaled 0 0 0 0 {nomem}", f"reset {invalid}", "signaled 0 0 0 0", "polled 0", "wr_* sent"])
        self.assertIn("violation: queue", said.stderr)
        counters = self.nic_a.settled()
        self.assertEqual((counters["tx_frames"], counters["violations"]), (10, 1))


if __name__ == "__main__":
    unittest.main()
