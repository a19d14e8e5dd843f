#include "program/check_step.h"

#include <algorithm>
#include <string>

#include "program/error.h"
#include "program/operator.h"

namespace rskip {

void StepCheck::fail(const std::string& what) const {
  throw EngineError(ErrorCode::kInternal,
                    "program: step " + std::to_string(index_) + " (" + operator_of(step.op).name + "): " + what);
}

void StepCheck::all_float() const {
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    require(optional(i) == nullptr || in(i).dtype == DType::kFloat32, "an input is not float32");
  }
  require(out().dtype == DType::kFloat32, "the output is not float32");
}

void StepCheck::conv_shapes() const {
  const Ints &x = in(0).shape, &w = in(1).shape, &y = out().shape;
  require(x.size() >= 3 && x.size() <= 5 && w.size() == x.size(), "bad ranks");
  const int64_t group = step.group;
  require(group >= 1 && w[0] % group == 0 && x[1] % group == 0 && x[1] / group == w[1], "channels and groups don't fit");
  require(y.size() == x.size() && y[1] == w[0], "output channels don't fit");
  window(in(0), out(), true);
}

void StepCheck::matmul_shapes(bool trans_b) const {
  const Ints &a = in(0).shape, &b = in(1).shape, &y = out().shape;
  require(a.size() >= 2 && b.size() >= 2 && y.size() == std::max(a.size(), b.size()), "bad ranks");
  const int64_t rows = b[b.size() - 2], columns = b.back();
  require(a.back() == (trans_b ? columns : rows) && y.back() == (trans_b ? rows : columns) &&
              y[y.size() - 2] == a[a.size() - 2],
          "the matrices don't fit");
  for (size_t d = 0; d + 2 < y.size(); ++d) {
    const auto extent = [&](const Ints& s) { return d + s.size() < y.size() ? 1 : s[d + s.size() - y.size()]; };
    const int64_t ea = extent(a), eb = extent(b);
    require((ea == 1 || ea == y[d]) && (eb == 1 || eb == y[d]) && (ea == y[d] || eb == y[d]), "leading axes don't fit");
  }
}

void StepCheck::reduces(const Value& value, const Value& x, const Ints& reduced) const {
  Ints kept, dropped;
  for (size_t d = 0; d < x.shape.size(); ++d) {
    const bool gone = std::find(reduced.begin(), reduced.end(), static_cast<int64_t>(d)) != reduced.end();
    kept.push_back(gone ? 1 : x.shape[d]);
    if (!gone) dropped.push_back(x.shape[d]);
  }
  require(value.shape == kept || value.shape == dropped, "a shape doesn't fit");
}

void StepCheck::broadcasts(bool exact) const {
  const Ints& y = out().shape;
  Ints widest(y.size(), 1);
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    const Ints& x = in(i).shape;
    require(x.size() <= y.size(), "an input has more axes than the output");
    for (size_t d = 0; d < x.size(); ++d) {
      const size_t at = y.size() - x.size() + d;
      require(x[d] == 1 || x[d] == y[at], "an input doesn't broadcast to the output");
      if (x[d] != 1) widest[at] = x[d];
    }
  }
  require(!exact || widest == y, "the output is larger than the inputs");
}

void StepCheck::window(const Value& x, const Value& y, bool exact) const {
  const ops::Window& w = step.window;
  const size_t rank = w.kernel.size();
  require(w.strides.size() == rank && w.dilations.size() == rank && w.pads.size() == 2 * rank, "bad window");
  require(x.shape.size() == rank + 2 && y.shape.size() == rank + 2 && x.shape[0] == y.shape[0], "bad ranks");
  for (size_t d = 0; d < rank; ++d) {
    const int64_t size = x.shape[d + 2], outs = y.shape[d + 2], kernel = w.kernel[d];
    const int64_t begin = w.pads[d], end = w.pads[rank + d];
    require(kernel >= 1 && w.strides[d] >= 1 && w.dilations[d] >= 1 && begin >= 0 && end >= 0, "bad window");
    require(kernel <= kMaxWindow && w.dilations[d] <= kMaxWindow, "bad window");
    const int64_t reach = w.dilations[d] * (kernel - 1) + 1;
    const int64_t padded = size + begin + end;
    require(padded <= kMaxWindow && reach <= kMaxWindow, "a window is too large");
    if (exact) {
      require(outs == (padded < reach ? 0 : (padded - reach) / w.strides[d] + 1), "the output's extent is wrong");
    } else {
      require(outs == 0 || (outs - 1) * w.strides[d] < padded, "a window starts outside of the input");
      require(outs <= kMaxWindow && (outs == 0 || size > 0), "a window has no input");
    }
  }
}

}  // namespace rskip
