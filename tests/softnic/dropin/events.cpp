/// Completion channels and asynchronous events. An event is counted when the application takes it: who destroys the
/// object waits until those are acknowledged, and the others are taken back.
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "tests/softnic/dropin/context.h"

namespace softnic::dropin {
namespace {

class Held {
 public:
  explicit Held(pthread_mutex_t& mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Held() { pthread_mutex_unlock(&mutex_); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  pthread_mutex_t& mutex_;
};

/// Where the events about one object are counted.
struct Account {
  pthread_mutex_t* mutex = nullptr;
  pthread_cond_t* changed = nullptr;
  std::uint32_t* acknowledged = nullptr;
  std::uint32_t* taken = nullptr;
};

// None for events about a port or the device.
Account account_of(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_CQ_ERR: {
      Cq& cq = cq_of(event.element.cq);
      return {&cq.mutex, &cq.cond, &cq.async_events_completed, &cq.taken.async};
    }
    case IBV_EVENT_QP_FATAL: {
      Qp& qp = qp_of(event.element.qp);
      return {&qp.qp_base.mutex, &qp.qp_base.cond, &qp.qp_base.events_completed, &qp.taken.async};
    }
    case IBV_EVENT_WQ_FATAL: {
      Wq& wq = static_cast<Wq&>(*event.element.wq);
      return {&wq.mutex, &wq.cond, &wq.events_completed, &wq.taken.async};
    }
    default:
      return {};
  }
}

ibv_async_event event_of(const AsyncRecord& record) {
  ibv_async_event event{};
  event.event_type = static_cast<ibv_event_type>(record.type);
  switch (event.event_type) {
    case IBV_EVENT_CQ_ERR:
      event.element.cq = ibv_cq_ex_to_cq(reinterpret_cast<Cq*>(record.element));
      break;
    case IBV_EVENT_QP_FATAL:
      event.element.qp = &reinterpret_cast<Qp*>(record.element)->qp_base;
      break;
    case IBV_EVENT_WQ_FATAL:
      event.element.wq = reinterpret_cast<Wq*>(record.element);
      break;
    default:
      event.element.port_num = static_cast<int>(record.element);
  }
  return event;
}

}  // namespace

void wait_acknowledged(pthread_mutex_t& mutex, pthread_cond_t& changed, const std::uint32_t& acknowledged,
                       const std::uint32_t& taken) {
  const Held held(mutex);
  while (acknowledged != taken) pthread_cond_wait(&changed, &mutex);
}

}  // namespace softnic::dropin

using namespace softnic::dropin;

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  if (const int error = context_of(context).injected(IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL)) return refuse(error);
  auto channel = std::make_unique<Channel>();
  channel->context = context;
  channel->fd = channel->pipe.read_fd();
  channel->refcnt = 0;
  return channel.release();
}

int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  {
    const auto held = context_of(channel->context).engine.lock();
    if (channel->refcnt != 0) return EBUSY;
  }
  const std::unique_ptr<Channel> gone(static_cast<Channel*>(channel));
  ::close(gone->fd);
  return 0;
}

int ibv_get_cq_event(ibv_comp_channel* channel, ibv_cq** out, void** cookie) {
  std::uint64_t record = 0;
  if (::read(channel->fd, &record, sizeof record) != sizeof record) return -1;
  Cq& cq = *reinterpret_cast<Cq*>(record);
  const Held held(cq.mutex);
  ++cq.taken.completion;
  *out = ibv_cq_ex_to_cq(&cq);
  *cookie = cq.cq_context;
  return 0;
}

void ibv_ack_cq_events(ibv_cq* handle, unsigned count) {
  Cq& cq = cq_of(handle);
  const Held held(cq.mutex);
  cq.comp_events_completed += count;
  pthread_cond_signal(&cq.cond);
}

int ibv_get_async_event(ibv_context* context, ibv_async_event* out) {
  AsyncRecord record{};
  if (::read(context->async_fd, &record, sizeof record) != sizeof record) return -1;
  *out = event_of(record);
  const Account account = account_of(*out);
  if (account.mutex == nullptr) return 0;
  const Held held(*account.mutex);
  ++*account.taken;
  return 0;
}

void ibv_ack_async_event(ibv_async_event* event) {
  const Account account = account_of(*event);
  if (account.mutex == nullptr) return;
  const Held held(*account.mutex);
  ++*account.acknowledged;
  pthread_cond_signal(account.changed);
}
