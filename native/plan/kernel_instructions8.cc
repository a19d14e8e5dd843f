#include "plan/kernel_instructions8.h"

#include <algorithm>
#include <utility>

#include "plan/simple_instruction.h"

namespace rskip {
namespace {

class Conv8 final : public Instruction {
 public:
  Conv8(const KernelTable& table, ConvOperands8 operands)
      : kernel_(table.conv8), o_(std::move(operands)), scratch_bytes_(conv8_scratch_bytes(*o_.conv, table.isa)) {}
  int64_t shareable_work() const override { return o_.multiply_adds; }
  size_t scratch_bytes() const override { return scratch_bytes_; }

 private:
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    ConvArgs8 args;
    BlockedView8 residual;
    resolve_conv(frame, o_, args, residual);
    args.rounding = o_.rounding;
    args.addition = o_.addition;
    args.scratch = workspace.scratch.data();
    kernel_(args, part, parts);
  }
  decltype(KernelTable::conv8) const kernel_;
  const ConvOperands8 o_;
  const size_t scratch_bytes_;
};

class Gemm8 final : public Instruction {
 public:
  Gemm8(const KernelTable& table, GemmOperands8 operands) : kernel_(table.gemm8), o_(std::move(operands)) {}
  int64_t shareable_work() const override { return saturating_product({o_.m, o_.k, o_.n}); }
  size_t scratch_bytes() const override { return gemm8_scratch_bytes(*o_.gemm, o_.m, o_.at_run_time()); }

 private:
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    GemmArgs8 args = gemm_args(frame, o_);
    args.gemm = o_.gemm.get();
    args.a = frame.at<uint8_t>(o_.a);
    args.m = o_.m;
    if (o_.to_float) {
      args.y_float = frame.at<float>(o_.y);
    } else {
      args.y = frame.at<uint8_t>(o_.y);
    }
    for (const AddedRows8& added : o_.additions) {
      args.additions[args.addition_count++] = {frame.at<uint8_t>(added.addend), added.row, added.sum};
    }
    args.scratch = workspace.scratch.data();
    kernel_(args, part, parts);
  }
  decltype(KernelTable::gemm8) const kernel_;
  const GemmOperands8 o_;
};

class Products8 final : public Instruction {
 public:
  Products8(const KernelTable& table, Place a, Place b, Place y, const ProductsArgs8& fixed, std::vector<int64_t> offsets)
      : kernel_(table.products8), a_(a), b_(b), y_(y), fixed_(fixed), offsets_(std::move(offsets)) {}
  int64_t shareable_work() const override { return saturating_product({count(), fixed_.m, fixed_.k, fixed_.n}); }
  size_t scratch_bytes() const override { return products8_scratch_bytes(fixed_.m, fixed_.k, fixed_.n); }

 private:
  int64_t count() const { return static_cast<int64_t>(offsets_.size() / 3); }
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    ProductsArgs8 args = fixed_;
    args.a = frame.at<uint8_t>(a_);
    args.b = frame.at<uint8_t>(b_);
    args.y = frame.at<uint8_t>(y_);
    args.count = count();
    args.offsets = offsets_.data();
    args.scratch = workspace.scratch.data();
    kernel_(args, part, parts);
  }
  decltype(KernelTable::products8) const kernel_;
  const Place a_, b_, y_;
  const ProductsArgs8 fixed_;
  const std::vector<int64_t> offsets_;
};

// A kernel that takes windows of `x`; `Y` is where its results go.
template <class Args, class Y>
InstructionPtr windowed(void (*kernel)(const Args&, int, int), BlockedOperand8 x, Y y, const Args& fixed) {
  const int64_t work = saturating_product({move_work(y.view), fixed.window.kernel_h, fixed.window.kernel_w});
  return simple(work, [kernel, x, y, fixed](Frame& frame, int part, int parts) {
    Args args = fixed;
    args.x = resolve(frame, x);
    args.y = resolve(frame, y);
    kernel(args, part, parts);
  });
}

// The share of n numbers, cut at whole vectors.
Share<int64_t> span_share8(int64_t n, int part, int parts) {
  const auto [begin, end] = share_of((n + kLanes - 1) / kLanes, part, parts);
  return {std::min(n, begin * kLanes), std::min(n, end * kLanes)};
}

}  // namespace

GemmArgs8 gemm_args(const Frame& frame, const GemmOperands8& o, ptrdiff_t first) {
  GemmArgs8 args;
  if (o.has_shift) args.shift = frame.at<float>(o.shift) + first;
  if (o.has_scale) args.scale = frame.at<float>(o.scale) + (o.scales == 1 ? 0 : first);
  if (o.has_zero) args.zero = frame.at<uint8_t>(o.zero);
  args.rounds_product = o.rounds_product;
  args.scales = o.scales;
  args.rounding = o.rounding;
  args.act = o.act;
  return args;
}

InstructionPtr make_conv8(const KernelTable& table, ConvOperands8 operands) {
  return std::make_unique<Conv8>(table, std::move(operands));
}

InstructionPtr make_gemm8(const KernelTable& table, GemmOperands8 operands) {
  return std::make_unique<Gemm8>(table, std::move(operands));
}

InstructionPtr make_products8(const KernelTable& table, Place a, Place b, Place y, const ProductsArgs8& fixed,
                              std::vector<int64_t> offsets) {
  return std::make_unique<Products8>(table, a, b, y, fixed, std::move(offsets));
}

InstructionPtr make_pool8(const KernelTable& table, BlockedOperand8 x, BlockedOperand8 y, const PoolArgs8& fixed) {
  return windowed(table.pool8, x, y, fixed);
}

InstructionPtr make_global_pool8(const KernelTable& table, BlockedOperand8 x, Place y, bool to_float,
                                 const GlobalPoolArgs8& fixed) {
  return simple(move_work(x.view), [kernel = table.global_pool8, x, y, to_float, fixed](Frame& frame, int part, int parts) {
    GlobalPoolArgs8 args = fixed;
    args.x = resolve(frame, x);
    if (to_float) {
      args.y_float = frame.at<float>(y);
    } else {
      args.y = frame.at<uint8_t>(y);
    }
    kernel(args, part, parts);
  });
}

InstructionPtr make_sum_pool8(const KernelTable& table, BlockedOperand8 x, BlockedOperand y, const SumPoolArgs8& fixed) {
  return windowed(table.sum_pool8, x, y, fixed);
}

InstructionPtr make_binary8(const KernelTable& table, BlockedOperand8 a, BlockedOperand8 b, BlockedOperand8 y,
                            const BinaryArgs8& fixed) {
  return simple(move_work(y.view), [kernel = table.binary8, a, b, y, fixed](Frame& frame, int part, int parts) {
    BinaryArgs8 args = fixed;
    args.a = resolve(frame, a);
    args.b = resolve(frame, b);
    args.y = resolve(frame, y);
    kernel(args, part, parts);
  });
}

InstructionPtr make_lookup8(const KernelTable& table, BlockedOperand8 x, Place lookup, BlockedOperand8 y) {
  return simple(move_work(y.view), [kernel = table.lookup8, x, lookup, y](Frame& frame, int part, int parts) {
    kernel({resolve(frame, x), resolve(frame, y), frame.at<uint8_t>(lookup)}, part, parts);
  });
}

InstructionPtr make_quantize8(const KernelTable& table, Place x, Place y, int64_t n, float scale, int32_t zero) {
  return simple(n * kMoveWork, [kernel = table.quantize8, x, y, n, scale, zero](Frame& frame, int part, int parts) {
    const auto [begin, end] = span_share8(n, part, parts);
    kernel({frame.at<float>(x) + begin, frame.at<uint8_t>(y) + begin, static_cast<size_t>(end - begin), scale, zero});
  });
}

// One thread's work: what follows needs the range of all.
InstructionPtr make_dynamic_quantize8(const KernelTable& table, Place x, Place y, Place scale, Place zero, int64_t n) {
  return simple(0, [kernel = table.dynamic_quantize8, x, y, scale, zero, n](Frame& frame, int part, int) {
    if (part > 0) return;
    kernel({frame.at<float>(x), frame.at<uint8_t>(y), static_cast<size_t>(n), frame.at<float>(scale), frame.at<uint8_t>(zero)});
  });
}
InstructionPtr make_dynamic_quantize8(const KernelTable& table, BlockedOperand x, BlockedOperand8 y, Place scale, Place zero) {
  return simple(0, [kernel = table.dynamic_quantize8, x, y, scale, zero](Frame& frame, int part, int) {
    if (part > 0) return;
    const BlockedView from = resolve(frame, x);
    const BlockedView8 to = resolve(frame, y);
    kernel({from.data, to.data, static_cast<size_t>(from.width) * kLanes, frame.at<float>(scale), frame.at<uint8_t>(zero), from.height,
            from.blocks(), from.channels - (from.blocks() - 1) * kLanes, from.row_stride, from.block_stride, to.row_stride,
            to.block_stride});
  });
}

InstructionPtr make_dequantize8(const KernelTable& table, Place x, Place y, int64_t n, float scale, int32_t zero) {
  return simple(n * kMoveWork, [kernel = table.dequantize8, x, y, n, scale, zero](Frame& frame, int part, int parts) {
    const auto [begin, end] = span_share8(n, part, parts);
    kernel({frame.at<uint8_t>(x) + begin, frame.at<float>(y) + begin, static_cast<size_t>(end - begin), zero, scale});
  });
}

InstructionPtr make_planar_to_blocked8(const KernelTable& table, PlanarOperand8 x, BlockedOperand8 y) {
  return simple(move_work(y.view), [kernel = table.planar_to_blocked8, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

InstructionPtr make_blocked_to_planar8(const KernelTable& table, BlockedOperand8 x, PlanarOperand8 y) {
  return simple(move_work(x.view), [kernel = table.blocked_to_planar8, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

BlockedOperand8 dense_span8(Place place, int64_t n) { return dense_rows8(place, 1, n); }

BlockedOperand8 dense_rows8(Place place, int64_t rows, int64_t n, bool one_for_all) {
  const ptrdiff_t row = one_for_all ? 0 : static_cast<ptrdiff_t>(n);
  return {place, {nullptr, kLanes, static_cast<int>(rows), static_cast<int>(n / kLanes), row, row * static_cast<ptrdiff_t>(rows)}};
}

}  // namespace rskip
