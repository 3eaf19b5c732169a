/// Protection domains and memory regions.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#include <cerrno>
#include <memory>

#include "tests/softnic/core/pinning.h"
#include "tests/softnic/dropin/context.h"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

namespace softnic::dropin {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr unsigned kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                             IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED |
                             IBV_ACCESS_HUGETLB | IBV_ACCESS_OPTIONAL_RANGE;

ibv_mr* register_region(ibv_pd* pd, void* at, std::size_t length, std::uint64_t iova, unsigned access) {
  Context& context = context_of(pd->context);
  const auto start = reinterpret_cast<std::uint64_t>(at);
  if (const int error = context.injected(IB_USER_VERBS_CMD_REG_MR)) return refuse(error);
  const bool remote = (access & (IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_REMOTE_WRITE)) != 0;
  if ((access & ~kAccess) != 0 || length == 0 || (remote && (access & IBV_ACCESS_LOCAL_WRITE) == 0) ||
      (start ^ iova) % kPage != 0) {
    return refuse(EINVAL);
  }
  const Pinnable memory = can_pin(start, length, (access & (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND)) != 0);
  if (!memory.allowed) return refuse(EFAULT);
  auto mr = std::make_unique<Mr>();
  const auto held = context.engine.lock();
  if (!may_lock_memory(context.pinned + length)) return refuse(ENOMEM);
  const std::uint64_t seen = (access & IBV_ACCESS_ZERO_BASED) != 0 ? start % kPage : iova;
  mr->context = pd->context;
  mr->pd = pd;
  mr->addr = at;
  mr->length = mr->pinned = length;
  mr->handle = mr->lkey = mr->rkey =
      context.engine.memory.add({start, seen, length, pd->handle, access, memory.shared});
  context.pinned += length;
  ++static_cast<Pd*>(pd)->users;
  return mr.release();
}

}  // namespace
}  // namespace softnic::dropin

using namespace softnic::dropin;

ibv_pd* ibv_alloc_pd(ibv_context* context) {
  Context& device = context_of(context);
  if (const int error = device.injected(IB_USER_VERBS_CMD_ALLOC_PD)) return refuse(error);
  auto pd = std::make_unique<Pd>();
  const auto held = device.engine.lock();
  pd->context = context;
  pd->handle = device.next_handle++;
  return pd.release();
}

int ibv_dealloc_pd(ibv_pd* pd) {
  std::unique_ptr<Pd> gone(static_cast<Pd*>(pd));
  const auto held = context_of(pd->context).engine.lock();
  if (gone->users == 0) return 0;
  static_cast<void>(gone.release());
  return EBUSY;
}

ibv_mr* ibv_reg_mr(ibv_pd* pd, void* at, std::size_t length, int access) {
  return register_region(pd, at, length, reinterpret_cast<std::uint64_t>(at), static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* at, std::size_t length, std::uint64_t iova, int access) {
  return register_region(pd, at, length, iova, static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova2(ibv_pd* pd, void* at, std::size_t length, std::uint64_t iova, unsigned access) {
  return register_region(pd, at, length, iova, access);
}

int ibv_dereg_mr(ibv_mr* mr) {
  const std::unique_ptr<Mr> gone(static_cast<Mr*>(mr));
  Context& context = context_of(mr->context);
  const auto held = context.engine.lock();
  context.pinned -= gone->pinned;
  --static_cast<Pd*>(mr->pd)->users;
  return context.engine.memory.remove(mr->lkey) ? 0 : EINVAL;
}
