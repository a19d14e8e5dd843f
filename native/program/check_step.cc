// Shapes and attributes of single steps: what kernels and ops rely on without asking again.
#include <algorithm>
#include <limits>
#include <string>

#include "program/error.h"
#include "program/program.h"

namespace rskip {
namespace {

// Strides, dilations, pads and windows beyond this make no sense and could overflow 64-bit sums.
constexpr int64_t kMaxExtent = std::numeric_limits<int32_t>::max();

class StepCheck {
 public:
  StepCheck(const Program& program, size_t index) : program_(program), index_(index), step_(program.steps[index]) {}

  void run();

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw EngineError(ErrorCode::kInternal,
                      "program: step " + std::to_string(index_) + " (" + op_name(step_.op) + "): " + what);
  }
  void require(bool ok, const char* what) const {
    if (!ok) fail(what);
  }
  const Value* optional(size_t i) const {
    const int32_t id = step_.inputs[i];
    return id == kNone ? nullptr : &program_.value(id);
  }
  const Value& in(size_t i) const {
    const Value* value = optional(i);
    if (value == nullptr) fail("a needed input is missing");
    return *value;
  }
  const Value& out(size_t i = 0) const { return program_.value(step_.outputs[i]); }
  void counts(size_t inputs, size_t outputs) const {
    require(step_.inputs.size() == inputs && step_.outputs.size() == outputs, "wrong number of inputs or outputs");
  }
  void all_float() const {
    for (size_t i = 0; i < step_.inputs.size(); ++i) {
      require(optional(i) == nullptr || in(i).dtype == DType::kFloat32, "an input is not float32");
    }
    require(out().dtype == DType::kFloat32, "the output is not float32");
  }
  void shape_is(const Value& value, const Ints& shape) const { require(value.shape == shape, "a shape doesn't fit"); }
  void axis_in(size_t rank) const { require(step_.axis >= 0 && step_.axis < static_cast<int64_t>(rank), "bad axis"); }
  void broadcasts() const;
  void window(const Value& x, const Value& y, const Ints& kernel, bool exact) const;
  void conv() const;
  void gemm() const;
  void matmul() const;
  void pool() const;
  void reduce_mean() const;
  void one_hot() const;
  void gather() const;
  void transpose() const;
  void pad() const;
  void slice() const;
  void concat() const;

  const Program& program_;
  size_t index_;
  const Step& step_;
};

// All inputs broadcast, as in numpy, to exactly the output's shape.
void StepCheck::broadcasts() const {
  const Ints& y = out().shape;
  Ints widest(y.size(), 1);
  for (size_t i = 0; i < step_.inputs.size(); ++i) {
    const Ints& x = in(i).shape;
    require(x.size() <= y.size(), "an input has more axes than the output");
    for (size_t d = 0; d < x.size(); ++d) {
      const size_t at = y.size() - x.size() + d;
      require(x[d] == 1 || x[d] == y[at], "an input doesn't broadcast to the output");
      if (x[d] != 1) widest[at] = x[d];
    }
  }
  require(widest == y || step_.op == Op::kExpand, "the output is larger than the inputs");
}

void StepCheck::window(const Value& x, const Value& y, const Ints& kernel, bool exact) const {
  const size_t rank = kernel.size();
  const ops::Window& w = step_.window;
  require(w.strides.size() == rank && w.dilations.size() == rank && w.pads.size() == 2 * rank, "bad window");
  require(x.shape.size() == rank + 2 && y.shape.size() == rank + 2 && x.shape[0] == y.shape[0], "bad ranks");
  for (size_t d = 0; d < rank; ++d) {
    const int64_t size = x.shape[d + 2], outs = y.shape[d + 2];
    const int64_t begin = w.pads[d], end = w.pads[rank + d];
    require(kernel[d] >= 1 && w.strides[d] >= 1 && w.dilations[d] >= 1 && begin >= 0 && end >= 0, "bad window");
    require(kernel[d] <= kMaxExtent && w.dilations[d] <= kMaxExtent, "bad window");
    const int64_t reach = w.dilations[d] * (kernel[d] - 1) + 1;
    const int64_t padded = size + begin + end;
    require(padded <= kMaxExtent && reach <= kMaxExtent, "a window is too large");
    if (exact) {
      require(outs == (padded < reach ? 0 : (padded - reach) / w.strides[d] + 1), "the output's extent is wrong");
    } else {
      require(outs == 0 || (outs - 1) * w.strides[d] < padded, "a window starts outside of the input");
      require(outs <= kMaxExtent && (outs == 0 || size > 0), "a window has no input");
    }
  }
}

void StepCheck::conv() const {
  counts(4, 1);
  all_float();
  const Ints &x = in(0).shape, &w = in(1).shape, &y = out().shape;
  require(x.size() >= 3 && x.size() <= 5 && w.size() == x.size(), "bad ranks");
  require(step_.group >= 1 && w[0] % step_.group == 0 && x[1] % step_.group == 0 && x[1] / step_.group == w[1],
          "channels and groups don't fit");
  require(y.size() == x.size() && y[1] == w[0], "output channels don't fit");
  window(in(0), out(), Ints(w.begin() + 2, w.end()), true);
  if (optional(2)) shape_is(in(2), {w[0]});
  if (optional(3)) shape_is(in(3), y);
}

void StepCheck::gemm() const {
  counts(4, 1);
  all_float();
  const Ints &a = in(0).shape, &b = in(1).shape, &y = out().shape;
  require(a.size() == 2 && b.size() == 2 && y.size() == 2, "bad ranks");
  const int64_t k = step_.trans_b ? b[1] : b[0], n = step_.trans_b ? b[0] : b[1];
  require(a[1] == k && y[0] == a[0] && y[1] == n, "the matrices don't fit");
  if (optional(2)) shape_is(in(2), {n});
  if (optional(3)) shape_is(in(3), y);
}

void StepCheck::matmul() const {
  counts(2, 1);
  all_float();
  const Ints &a = in(0).shape, &b = in(1).shape, &y = out().shape;
  require(a.size() >= 2 && b.size() >= 2 && y.size() == std::max(a.size(), b.size()), "bad ranks");
  require(a.back() == b[b.size() - 2] && y.back() == b.back() && y[y.size() - 2] == a[a.size() - 2],
          "the matrices don't fit");
  for (size_t d = 0; d + 2 < y.size(); ++d) {
    const auto extent = [&](const Ints& s) { return d + s.size() < y.size() ? 1 : s[d + s.size() - y.size()]; };
    const int64_t ea = extent(a), eb = extent(b);
    require((ea == 1 || ea == y[d]) && (eb == 1 || eb == y[d]) && (ea == y[d] || eb == y[d]), "leading axes don't fit");
  }
}

void StepCheck::pool() const {
  require(step_.outputs.size() == 1 || (step_.outputs.size() == 2 && step_.max), "wrong number of outputs");
  counts(1, step_.outputs.size());
  all_float();
  window(in(0), out(), step_.window.kernel, false);
  require(in(0).shape[1] == out().shape[1], "channels differ");
  if (step_.outputs.size() == 2) {
    require(out(1).dtype == DType::kInt64, "the indices are not int64");
    shape_is(out(1), out().shape);
  }
}

void StepCheck::reduce_mean() const {
  counts(1, 1);
  all_float();
  const Ints& x = in(0).shape;
  int64_t last = -1;
  for (int64_t a : step_.axes) {
    require(a > last && a < static_cast<int64_t>(x.size()), "bad axes");
    last = a;
  }
  Ints kept, dropped;
  for (size_t d = 0; d < x.size(); ++d) {
    const bool reduced = std::binary_search(step_.axes.begin(), step_.axes.end(), static_cast<int64_t>(d));
    kept.push_back(reduced ? 1 : x[d]);
    if (!reduced) dropped.push_back(x[d]);
  }
  require(out().shape == kept || out().shape == dropped, "a shape doesn't fit");
}

void StepCheck::one_hot() const {
  counts(2, 1);
  const Value &indices = in(0), &values = in(1);
  require(indices.dtype == DType::kInt64 || indices.dtype == DType::kInt32 || indices.dtype == DType::kFloat32,
          "bad type of indices");
  require(values.elements == 2 && values.dtype == out().dtype, "bad values");
  Ints shape = indices.shape;
  axis_in(shape.size() + 1);
  shape.insert(shape.begin() + step_.axis, step_.depth);
  shape_is(out(), shape);
}

void StepCheck::gather() const {
  counts(2, 1);
  const Value &data = in(0), &indices = in(1);
  require(indices.dtype == DType::kInt64 || indices.dtype == DType::kInt32, "bad type of indices");
  require(data.dtype == out().dtype, "types differ");
  axis_in(data.shape.size());
  Ints shape(data.shape.begin(), data.shape.begin() + step_.axis);
  shape.insert(shape.end(), indices.shape.begin(), indices.shape.end());
  shape.insert(shape.end(), data.shape.begin() + step_.axis + 1, data.shape.end());
  shape_is(out(), shape);
}

void StepCheck::transpose() const {
  counts(1, 1);
  require(in(0).dtype == out().dtype, "types differ");
  const Ints& x = in(0).shape;
  require(step_.perm.size() == x.size() && out().shape.size() == x.size(), "bad rank");
  std::vector<bool> seen(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t p = step_.perm[i];
    require(p >= 0 && p < static_cast<int64_t>(x.size()) && !seen[static_cast<size_t>(p)], "bad permutation");
    seen[static_cast<size_t>(p)] = true;
    require(out().shape[i] == x[static_cast<size_t>(p)], "a shape doesn't fit");
  }
}

void StepCheck::pad() const {
  counts(1, 1);
  require(in(0).dtype == out().dtype, "types differ");
  const Ints &x = in(0).shape, &y = out().shape;
  require(step_.pads.size() == 2 * x.size() && y.size() == x.size(), "bad rank");
  for (size_t d = 0; d < x.size(); ++d) {
    const int64_t begin = step_.pads[d], end = step_.pads[x.size() + d];
    require(y[d] == x[d] + begin + end, "a shape doesn't fit");
    if (step_.pad_mode == ops::PadMode::kConstant || y[d] == 0) continue;
    // What is mirrored or repeated is what the crop leaves.
    const int64_t kept = x[d] + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0);
    require(kept >= 1, "nothing is left to pad with");
    if (step_.pad_mode == ops::PadMode::kReflect) {
      require(begin < kept && end < kept, "a reflecting pad is longer than the input");
    }
  }
}

void StepCheck::slice() const {
  counts(1, 1);
  require(in(0).dtype == out().dtype, "types differ");
  const Ints &x = in(0).shape, &y = out().shape;
  require(step_.starts.size() == x.size() && step_.steps.size() == x.size() && y.size() == x.size(), "bad rank");
  for (size_t d = 0; d < x.size(); ++d) {
    if (y[d] == 0) continue;
    const int64_t start = step_.starts[d], stride = step_.steps[d];
    // |stride| < 2^31 and y[d] < 2^31, so the product fits.
    const int64_t last = start + (y[d] - 1) * stride;
    require(start >= 0 && start < x[d] && last >= 0 && last < x[d], "a slice leaves its input");
  }
}

void StepCheck::concat() const {
  require(!step_.inputs.empty(), "no inputs");
  counts(step_.inputs.size(), 1);
  const Ints& y = out().shape;
  axis_in(y.size());
  int64_t sum = 0;
  for (size_t i = 0; i < step_.inputs.size(); ++i) {
    Ints shape = in(i).shape;
    require(in(i).dtype == out().dtype && shape.size() == y.size(), "inputs differ");
    sum += shape[static_cast<size_t>(step_.axis)];
    shape[static_cast<size_t>(step_.axis)] = y[static_cast<size_t>(step_.axis)];
    shape_is(out(), shape);
  }
  require(sum == y[static_cast<size_t>(step_.axis)], "the extents don't add up");
}

void StepCheck::run() {
  switch (step_.op) {
    case Op::kConv: return conv();
    case Op::kGemm: return gemm();
    case Op::kMatmul: return matmul();
    case Op::kAffine:
      counts(3, 1);
      all_float();
      require(in(0).shape.size() >= 2, "bad rank");
      shape_is(in(1), {in(0).shape[1]});
      shape_is(in(2), {in(0).shape[1]});
      return shape_is(out(), in(0).shape);
    case Op::kUnary:
      counts(1, 1);
      all_float();
      return shape_is(out(), in(0).shape);
    case Op::kBinary:
      counts(2, 1);
      require(in(0).dtype == in(1).dtype && in(0).dtype == out().dtype, "types differ");
      require(out().dtype != DType::kBool, "arithmetic on bool");
      require(out().dtype == DType::kFloat32 || step_.act.kind == ActivationKind::kNone, "an activation on integers");
      return broadcasts();
    case Op::kCompare:
      counts(2, 1);
      require(in(0).dtype == in(1).dtype && out().dtype == DType::kBool, "types differ");
      return broadcasts();
    case Op::kLogical:
      counts(step_.logical == ops::LogicalKind::kNot ? 1 : 2, 1);
      for (size_t i = 0; i < step_.inputs.size(); ++i) require(in(i).dtype == DType::kBool, "an input is not bool");
      require(out().dtype == DType::kBool, "the output is not bool");
      return broadcasts();
    case Op::kWhere:
      counts(3, 1);
      require(in(0).dtype == DType::kBool, "the condition is not bool");
      require(in(1).dtype == out().dtype && in(2).dtype == out().dtype, "types differ");
      return broadcasts();
    case Op::kCast: counts(1, 1); return shape_is(out(), in(0).shape);
    case Op::kPool: return pool();
    case Op::kGlobalPool: {
      counts(1, 1);
      all_float();
      const Ints& x = in(0).shape;
      require(x.size() >= 2, "bad rank");
      Ints kept(x.size(), 1);
      kept[0] = x[0];
      kept[1] = x[1];
      return require(out().shape == kept || out().shape == Ints{x[0], x[1]}, "a shape doesn't fit");
    }
    case Op::kReduceMean: return reduce_mean();
    case Op::kSoftmax:
      counts(1, 1);
      all_float();
      axis_in(in(0).shape.size());
      return shape_is(out(), in(0).shape);
    case Op::kArgMax: {
      counts(1, 1);
      require(in(0).dtype == DType::kFloat32 && out().dtype == DType::kInt64, "bad types");
      axis_in(in(0).shape.size());
      Ints kept = in(0).shape, dropped = in(0).shape;
      require(kept[static_cast<size_t>(step_.axis)] > 0, "the maximum of nothing");
      kept[static_cast<size_t>(step_.axis)] = 1;
      dropped.erase(dropped.begin() + step_.axis);
      return require(out().shape == kept || out().shape == dropped, "a shape doesn't fit");
    }
    case Op::kOneHot: return one_hot();
    case Op::kGather: return gather();
    case Op::kTranspose: return transpose();
    case Op::kPad: return pad();
    case Op::kSlice: return slice();
    case Op::kConcat: return concat();
    case Op::kReshape:
      counts(1, 1);
      return require(in(0).dtype == out().dtype && in(0).elements == out().elements, "the elements differ");
    case Op::kExpand:
      counts(1, 1);
      require(in(0).dtype == out().dtype, "types differ");
      return broadcasts();
    case Op::kBranch:
      counts(1, 0);
      return require(in(0).dtype == DType::kBool && in(0).elements == 1, "the condition is not one bool");
    case Op::kJump: return counts(0, 0);
  }
}

}  // namespace

void validate_step(const Program& program, size_t index) { StepCheck(program, index).run(); }

}  // namespace rskip
