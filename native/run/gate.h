// The decisions of gates and exits.
#pragma once

#include "ops/ops.h"

namespace rskip {

// Whether the block runs: score <compare> threshold. It runs when the score is NaN, as in the network without gates.
inline bool gate_runs(ops::CompareKind compare, float score, float threshold) {
  if (score != score) return true;
  switch (compare) {
    case ops::CompareKind::kGt: return score > threshold;
    case ops::CompareKind::kGe: return score >= threshold;
    case ops::CompareKind::kLt: return score < threshold;
    case ops::CompareKind::kLe: return score <= threshold;
    case ops::CompareKind::kEq: return score == threshold;
  }
  return true;
}

// Whether the item ends here. A NaN score is not sure: the item goes on.
inline bool exit_taken(float score, float threshold) { return score >= threshold; }

}  // namespace rskip
