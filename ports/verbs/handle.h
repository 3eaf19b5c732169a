#pragma once
#include <infiniband/verbs.h>

#include <memory>

namespace vswitch::verbs {

/// Gives verbs objects back; one overload a kind, so that Verbs<T> is all a caller writes. Members of a class die in
/// reverse order: declare them in the order in which they were made.
struct VerbsDelete {
  void operator()(ibv_context* p) const noexcept { ibv_close_device(p); }
  void operator()(ibv_pd* p) const noexcept { ibv_dealloc_pd(p); }
  void operator()(ibv_mr* p) const noexcept { ibv_dereg_mr(p); }
  void operator()(ibv_comp_channel* p) const noexcept { ibv_destroy_comp_channel(p); }
  void operator()(ibv_cq* p) const noexcept { ibv_destroy_cq(p); }
  void operator()(ibv_cq_ex* p) const noexcept { ibv_destroy_cq(ibv_cq_ex_to_cq(p)); }
  void operator()(ibv_qp* p) const noexcept { ibv_destroy_qp(p); }
  void operator()(ibv_flow* p) const noexcept { ibv_destroy_flow(p); }
};
template <class T>
using Verbs = std::unique_ptr<T, VerbsDelete>;

}  // namespace vswitch::verbs
