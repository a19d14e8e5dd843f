#include "plan/kernel_instructions8.h"

#include <utility>

#include "plan/simple_instruction.h"

namespace rskip {
namespace {

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

InstructionPtr make_conv8(const KernelTable& table, ConvOperands8 o) {
  const int64_t work = o.multiply_adds;
  const size_t bytes = conv8_scratch_bytes(*o.conv, table.isa);
  const auto kernel = table.conv8;
  return with_scratch(work, bytes, [kernel, o = std::move(o)](Frame& frame, void* scratch, int part, int parts) {
    ConvArgs8 args;
    BlockedView8 residual;
    resolve_conv(frame, o, args, residual);
    args.rounding = o.rounding;
    args.addition = o.addition;
    args.scratch = scratch;
    kernel(args, part, parts);
  });
}

InstructionPtr make_gemm8(const KernelTable& table, GemmOperands8 o) {
  const int64_t work = saturating_product({o.m, o.k, o.n});
  const size_t bytes = gemm8_scratch_bytes(*o.gemm, o.m, o.at_run_time());
  const auto kernel = table.gemm8;
  return with_scratch(work, bytes, [kernel, o = std::move(o)](Frame& frame, void* scratch, int part, int parts) {
    GemmArgs8 args = gemm_args(frame, o);
    args.gemm = o.gemm.get();
    args.a = frame.at<uint8_t>(o.a);
    args.m = o.m;
    if (o.to_float) {
      args.y_float = frame.at<float>(o.y);
    } else {
      args.y = frame.at<uint8_t>(o.y);
    }
    for (const AddedRows8& added : o.additions) {
      args.additions[args.addition_count++] = {frame.at<uint8_t>(added.addend), added.row, added.sum};
    }
    args.scratch = scratch;
    kernel(args, part, parts);
  });
}

InstructionPtr make_products8(const KernelTable& table, Place a, Place b, Place y, const ProductsArgs8& fixed,
                              std::vector<int64_t> offsets) {
  const int64_t count = static_cast<int64_t>(offsets.size() / 3);
  const int64_t work = saturating_product({count, fixed.m, fixed.k, fixed.n});
  const size_t bytes = products8_scratch_bytes(fixed.m, fixed.k, fixed.n);
  return with_scratch(work, bytes, [kernel = table.products8, a, b, y, fixed, count, offsets = std::move(offsets)](
                                       Frame& frame, void* scratch, int part, int parts) {
    ProductsArgs8 args = fixed;
    args.a = frame.at<uint8_t>(a);
    args.b = frame.at<uint8_t>(b);
    args.y = frame.at<uint8_t>(y);
    args.count = count;
    args.offsets = offsets.data();
    args.scratch = scratch;
    kernel(args, part, parts);
  });
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
    const auto [begin, end] = span_share(n, part, parts);
    kernel({frame.at<float>(x) + begin, frame.at<uint8_t>(y) + begin, static_cast<size_t>(end - begin), scale, zero});
  });
}

InstructionPtr make_quantize8(const KernelTable& table, BlockedOperand x, BlockedOperand8 y, float scale, int32_t zero) {
  return simple(move_work(y.view), [kernel = table.quantize8, x, y, scale, zero](Frame& frame, int part, int parts) {
    const BlockedView from = resolve(frame, x);
    const BlockedView8 to = resolve(frame, y);
    const auto [begin, end] = share_of(int64_t{to.blocks()} * to.height, part, parts);
    for (int64_t at = begin; at < end; ++at) {
      const int64_t block = at / to.height, row = at % to.height;
      kernel({from.data + block * from.block_stride + row * from.row_stride, to.data + block * to.block_stride + row * to.row_stride,
              static_cast<size_t>(to.width) * kLanes, scale, zero});
    }
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
    const auto [begin, end] = span_share(n, part, parts);
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
