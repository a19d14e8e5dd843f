#include "plan/plan.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "plan/parallel.h"
#include "plan/passes.h"

namespace rskip {

std::unique_ptr<const Plan> make_plan(const Program& program, std::span<const ConstantData> constants,
                                      const PlanContext& context) {
  DraftGraph graph = store_pairs(fuse(lower(program, constants, context.weights, context.precision, context.table.isa)));
  // The largest first, so that no worker is left with one at the end.
  std::vector<Packing>& packing = graph.packing;
  std::stable_sort(packing.begin(), packing.end(),
                   [](const Packing& a, const Packing& b) { return a.elements > b.elements; });
  const auto report = [&](int which, int32_t more) {
    if (context.progress == nullptr) return;
    std::atomic_ref<int32_t>(context.progress[which]).fetch_add(more, std::memory_order_relaxed);
  };
  report(1, static_cast<int32_t>(packing.size()));
  std::mutex mutex;
  std::vector<ReadMemory> idle;  // as many as threads that pack
  parallel_for(context.threads, static_cast<int64_t>(packing.size()), [&](int64_t i) {
    ReadMemory memory;
    {
      std::lock_guard lock(mutex);
      if (!idle.empty()) {
        memory = std::move(idle.back());
        idle.pop_back();
      }
    }
    packing[static_cast<size_t>(i)].pack(memory);
    {
      std::lock_guard lock(mutex);
      idle.push_back(std::move(memory));
    }
    report(0, 1);
  });
  const Placement placement = place(graph, context.memory_limit);
  return emit(program, std::move(graph), placement, context.table, context.memory_limit);
}

Frame Plan::make_frame() const {
  Frame frame;
  frame.bases.assign(Frame::base_count(inputs.size() + outputs.size()), 0);
  frame.views = views;
  return frame;
}

}  // namespace rskip
