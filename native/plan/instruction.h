// One executable step of a plan. Everything about it is fixed when the plan is made; at run time operands are
// base + offset, and running one is a single indirect call.
#pragma once

#include <memory>
#include <span>
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
    fill(frame, part, parts);
    compute(frame, workspace, part, parts);
  }
  // The same of several items at once, of which each has a frame. Requires joint_gain() > 0.
  void run_joint(std::span<Frame* const> frames, Workspace& workspace, int part, int parts) const {
    for (Frame* frame : frames) fill(*frame, part, parts);
    compute_joint(frames, workspace, part, parts);
  }
  // Rough multiply-adds or moved floats; below a limit sharing costs more than it gains. 0: can't be shared.
  virtual int64_t shareable_work() const { return 0; }
  virtual size_t scratch_bytes() const { return 0; }
  // Multiply-adds that would take about as long as what run_joint() saves for each item. 0: it can't be called.
  virtual int64_t joint_gain() const { return 0; }
  // Scratch that run_joint() needs for each item.
  virtual size_t joint_scratch_bytes() const { return 0; }

  std::vector<HaloFill> halo_fills;
  std::vector<TailFill> tail_fills;

 private:
  void fill(Frame& frame, int part, int parts) const {
    for (const HaloFill& fill : halo_fills) fill.run(frame, part, parts);
    if (part > 0) return;
    for (const TailFill& fill : tail_fills) fill.run(frame);
  }
  virtual void compute(Frame& frame, Workspace& workspace, int part, int parts) const = 0;
  virtual void compute_joint(std::span<Frame* const>, Workspace&, int, int) const {}
};

using InstructionPtr = std::unique_ptr<Instruction>;

}  // namespace rskip
