// One executable step of a plan. Everything about it is fixed when the plan is made; at run time operands are
// base + offset, and running one is a single indirect call.
#pragma once

#include <memory>
#include <vector>

#include "plan/fill.h"
#include "plan/frame.h"
#include "plan/workspace.h"

namespace rskip {

class Instruction {
 public:
  virtual ~Instruction() = default;
  // The part-th of `parts` disjoint shares; together they give the same bits as (0, 1).
  void run(Frame& frame, Workspace& workspace, int part, int parts) const {
    for (const HaloFill& fill : halo_fills) fill.run(frame, part, parts);
    if (part == 0) {
      for (const TailFill& fill : tail_fills) fill.run(frame);
    }
    compute(frame, workspace, part, parts);
  }
  // Rough multiply-adds or moved floats; below a limit sharing costs more than it gains. 0: can't be shared.
  virtual int64_t shareable_work() const { return 0; }
  virtual size_t scratch_bytes() const { return 0; }

  std::vector<HaloFill> halo_fills;
  std::vector<TailFill> tail_fills;

 private:
  virtual void compute(Frame& frame, Workspace& workspace, int part, int parts) const = 0;
};

using InstructionPtr = std::unique_ptr<Instruction>;

}  // namespace rskip
