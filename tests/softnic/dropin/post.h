#pragma once

#include <infiniband/verbs.h>

#include "tests/softnic/dropin/objects.h"

/// The data path as the application calls it.
namespace softnic::dropin {

int post_send(ibv_qp* qp, ibv_send_wr* request, ibv_send_wr** bad);
int post_recv(ibv_qp* qp, ibv_recv_wr* request, ibv_recv_wr** bad);
int post_wq_recv(ibv_wq* wq, ibv_recv_wr* request, ibv_recv_wr** bad);
/// ibv_wr_start and the like.
void set_work_request_calls(Qp& qp);

}  // namespace softnic::dropin
