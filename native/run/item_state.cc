#include "run/item_state.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "run/gate.h"

namespace rskip {
namespace {

// A state: the number of the exit, from 1; then the thresholds, scores, modes and outcomes of all decisions; then the arena's spans.
class State {
 public:
  State(const Plan& plan, char* data) : plan_(plan), data_(data) {}

  size_t header_bytes() const { return sizeof(int32_t) + plan_.decisions() * (2 * sizeof(float) + 2); }

  int32_t exit() const {
    int32_t number;
    std::memcpy(&number, data_, sizeof(number));
    return number > 0 && static_cast<size_t>(number) <= plan_.exits.size() ? number - 1 : -1;
  }
  void set_exit(int32_t exit) const {
    const int32_t number = exit + 1;
    std::memcpy(data_, &number, sizeof(number));
  }
  char* thresholds() const { return data_ + sizeof(int32_t); }
  char* scores() const { return thresholds() + plan_.decisions() * sizeof(float); }
  char* modes() const { return scores() + plan_.decisions() * sizeof(float); }
  char* outcomes() const { return modes() + plan_.decisions(); }
  char* spans() const { return data_ + header_bytes(); }

 private:
  const Plan& plan_;
  char* const data_;
};

size_t bytes_of(const PlanExit& exit) {
  size_t bytes = 0;
  for (const ArenaSpan& span : exit.live) bytes += span.bytes;
  return bytes;
}

// Calls visit(decision) for what was decided before the exit.
template <class Visit>
void before(const Plan& plan, int32_t exit, Visit visit) {
  for (size_t b = 0; b < plan.blocks.size(); ++b) {
    if (plan.blocks[b].end <= plan.exits[static_cast<size_t>(exit)].next) visit(b);
  }
  for (size_t e = 0; e < static_cast<size_t>(exit); ++e) visit(plan.blocks.size() + e);
}

}  // namespace

size_t state_bytes(const Plan& plan) {
  size_t most = 0;
  for (const PlanExit& exit : plan.exits) most = std::max(most, bytes_of(exit));
  return plan.exits.empty() ? 0 : State(plan, nullptr).header_bytes() + most;
}

void keep_state(const Plan& plan, const Frame& frame, const ItemContext& item, int32_t exit) {
  const State state(plan, item.state);
  const size_t decisions = plan.decisions();
  state.set_exit(exit);
  std::memcpy(state.thresholds(), item.thresholds, decisions * sizeof(float));
  std::memcpy(state.scores(), item.scores, decisions * sizeof(float));
  std::memcpy(state.modes(), item.modes, decisions);
  std::memcpy(state.outcomes(), item.outcomes, decisions);
  char* to = state.spans();
  for (const ArenaSpan& span : plan.exits[static_cast<size_t>(exit)].live) {
    std::memcpy(to, frame.at<char>(Place::in_arena(span.offset)), span.bytes);
    to += span.bytes;
  }
}

int32_t resume(const Plan& plan, const Frame& frame, const ItemContext& item) {
  const State state(plan, item.state);
  const int32_t exit = state.exit();
  if (exit < 0) return 0;
  const auto float_at = [](const char* from, size_t i) {
    float value;
    std::memcpy(&value, from + i * sizeof(value), sizeof(value));
    return value;
  };
  bool same = true;
  before(plan, exit, [&](size_t decision) {
    const BlockMode mode = item.modes[decision];
    if (decision >= plan.blocks.size()) {
      same = same && !exit_taken(float_at(state.scores(), decision), item.thresholds[decision]);
    } else if (mode != static_cast<BlockMode>(state.modes()[decision])) {
      same = false;
    } else if (mode == BlockMode::kGate) {
      same = same && float_at(state.thresholds(), decision) == item.thresholds[decision];
    }
  });
  const size_t stopped = plan.blocks.size() + static_cast<size_t>(exit);
  const float score = float_at(state.scores(), stopped);
  if (!same || exit_taken(score, item.thresholds[stopped])) return 0;
  before(plan, exit, [&](size_t decision) {
    item.outcomes[decision] = static_cast<uint8_t>(state.outcomes()[decision]);
    item.scores[decision] = float_at(state.scores(), decision);
  });
  item.scores[stopped] = score;
  const char* from = state.spans();
  for (const ArenaSpan& span : plan.exits[static_cast<size_t>(exit)].live) {
    std::memcpy(frame.at<char>(Place::in_arena(span.offset)), from, span.bytes);
    from += span.bytes;
  }
  return plan.exits[static_cast<size_t>(exit)].next;
}

}  // namespace rskip
