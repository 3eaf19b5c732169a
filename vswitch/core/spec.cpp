#include "vswitch/core/spec.h"

namespace vswitch {

const char* to_string(Mode mode) noexcept {
  switch (mode) {
    case Mode::bridge:
      return "bridge";
    case Mode::private_:
      return "private";
    case Mode::vepa:
      return "vepa";
    case Mode::passthru:
      return "passthru";
    case Mode::source:
      return "source";
  }
  return "?";
}

const char* to_string(Idle idle) noexcept {
  switch (idle) {
    case Idle::adaptive:
      return "adaptive";
    case Idle::poll:
      return "poll";
    case Idle::sleep:
      return "sleep";
  }
  return "?";
}

const char* to_string(UplinkDriver driver) noexcept {
  switch (driver) {
    case UplinkDriver::automatic:
      return "auto";
    case UplinkDriver::af_packet:
      return "af_packet";
    case UplinkDriver::verbs:
      return "verbs";
  }
  return "?";
}

}  // namespace vswitch
