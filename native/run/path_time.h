// How long a program takes at most, as far as its runs have shown.
#pragma once

#include <limits>

namespace rskip {

class PathTime {
 public:
  // An item took `milliseconds` for a `share`, above 0 and at most 1, of the longest path: every block, no exit.
  void see(double milliseconds, double share) {
    if (share <= 0 || share < share_) {
      share_ *= kAging;
      return;
    }
    const double whole = milliseconds / share;
    // Of two times for the same work the longer one was held up, mostly by other processes.
    longest_ = share > share_ || whole < longest_ ? whole : longest_ + (whole - longest_) * kHeldUp;
    share_ = share;
  }
  // In milliseconds, of one item; infinity before the first.
  double longest() const { return longest_; }

 private:
  // What less work says doesn't count while there is better to go by. A run of half the path counts after 700 of its kind.
  static constexpr double kAging = 0.999;
  static constexpr double kHeldUp = 0.0625;
  double longest_ = std::numeric_limits<double>::infinity();
  double share_ = 0;  // of the run that `longest_` is from
};

}  // namespace rskip
