#include "plan/kernel_instructions.h"

#include <algorithm>
#include <utility>

#include "kernels/bfloat16/pack16.h"
#include "plan/simple_instruction.h"

namespace rskip {

decltype(KernelTable::conv) conv_kernel(const KernelTable& table, const PackedConv& conv) {
  return is_bfloat16(conv.algorithm) ? table.conv16 : table.conv;
}

InstructionPtr make_conv(const KernelTable& table, ConvOperands o) {
  const int64_t work = o.multiply_adds;
  const size_t bytes = conv_scratch_bytes(*o.conv);
  const auto kernel = conv_kernel(table, *o.conv);
  return with_scratch(work, bytes, [kernel, o = std::move(o)](Frame& frame, void* scratch, int part, int parts) {
    ConvArgs args;
    BlockedView residual;
    resolve_conv(frame, o, args, residual);
    args.act = o.act;
    args.scratch = scratch;
    kernel(args, part, parts);
  });
}

InstructionPtr make_gemm(const KernelTable& table, GemmOperands o) {
  const int64_t work = saturating_product({o.m, o.k, o.n});
  const auto kernel = o.bfloat16 ? table.gemm16 : table.gemm;
  const size_t bytes = o.bfloat16 ? gemm16_scratch_bytes(o.k, o.m) : gemm_scratch_bytes(*o.gemm);
  return with_scratch(work, bytes, [kernel, o = std::move(o)](Frame& frame, void* scratch, int part, int parts) {
    GemmArgs args;
    args.scratch = scratch;
    args.gemm = o.gemm.get();
    args.a = frame.at<float>(o.a);
    args.y = frame.at<float>(o.y);
    args.residual = o.has_residual ? frame.at<float>(o.residual) : nullptr;
    args.m = o.m;
    args.act = o.act;
    kernel(args, part, parts);
  });
}

InstructionPtr make_pool(const KernelTable& table, BlockedOperand x, BlockedOperand y, const PoolArgs& window) {
  const int64_t work = saturating_product({move_work(y.view), window.kernel_h, window.kernel_w});
  return simple(work, [kernel = table.pool, x, y, window](Frame& frame, int part, int parts) {
    PoolArgs args = window;
    args.x = resolve(frame, x);
    args.y = resolve(frame, y);
    kernel(args, part, parts);
  });
}

InstructionPtr make_global_pool(const KernelTable& table, BlockedOperand x, GlobalPoolKind kind, Place y) {
  return simple(move_work(x.view), [kernel = table.global_pool, x, kind, y](Frame& frame, int part, int parts) {
    BlockedView view = resolve(frame, x);
    const auto [begin, end] = share_of(view.blocks(), part, parts);
    if (begin == end) return;
    view.data += begin * view.block_stride;
    view.channels = std::min(view.channels, end * kLanes) - begin * kLanes;
    kernel(view, kind, frame.at<float>(y) + begin * kLanes);
  });
}

InstructionPtr make_affine(const KernelTable& table, BlockedOperand x, Place scale, Place shift, BlockedOperand y,
                           Activation act) {
  return simple(
      move_work(y.view), [kernel = table.affine_blocked, x, scale, shift, y, act](Frame& frame, int part, int parts) {
        kernel(resolve(frame, x), frame.at<float>(scale), frame.at<float>(shift), resolve(frame, y), act, part, parts);
      });
}

InstructionPtr make_unary(const KernelTable& table, BlockedOperand x, BlockedOperand y, Activation act) {
  return simple(move_work(y.view), [kernel = table.unary_blocked, x, y, act](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), act, part, parts);
  });
}

InstructionPtr make_binary(const KernelTable& table, BinaryKind kind, BlockedOperand a, BlockedOperand b,
                           BlockedOperand y, Activation act) {
  return simple(move_work(y.view),
                [kernel = table.binary_blocked, kind, a, b, y, act](Frame& frame, int part, int parts) {
                  kernel(kind, resolve(frame, a), resolve(frame, b), resolve(frame, y), act, part, parts);
                });
}

InstructionPtr make_binary_channel(const KernelTable& table, BinaryKind kind, BlockedOperand a, Place v, bool reversed,
                                   BlockedOperand y, Activation act) {
  const auto body = [kernel = table.binary_channel, kind, a, v, reversed, y, act](Frame& frame, int part, int parts) {
    kernel(kind, resolve(frame, a), frame.at<float>(v), reversed, resolve(frame, y), act, part, parts);
  };
  return simple(move_work(y.view), body);
}

InstructionPtr make_unary_span(const KernelTable& table, Place x, Place y, int64_t n, Activation act) {
  return simple(n * kMoveWork, [kernel = table.unary_span, x, y, n, act](Frame& frame, int part, int parts) {
    const auto [begin, end] = span_share(n, part, parts);
    kernel(frame.at<float>(x) + begin, frame.at<float>(y) + begin, static_cast<size_t>(end - begin), act);
  });
}

InstructionPtr make_binary_span(const KernelTable& table, BinaryKind kind, Place a, Place b, Place y, int64_t n,
                                Activation act) {
  return simple(n * kMoveWork, [kernel = table.binary_span, kind, a, b, y, n, act](Frame& frame, int part, int parts) {
    const auto [begin, end] = span_share(n, part, parts);
    kernel(kind, frame.at<float>(a) + begin, 1, frame.at<float>(b) + begin, 1, frame.at<float>(y) + begin,
           static_cast<size_t>(end - begin), act);
  });
}

InstructionPtr make_planar_to_blocked(const KernelTable& table, PlanarOperand x, BlockedOperand y) {
  return simple(move_work(y.view), [kernel = table.planar_to_blocked, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

InstructionPtr make_blocked_to_planar(const KernelTable& table, BlockedOperand x, PlanarOperand y) {
  return simple(move_work(x.view), [kernel = table.blocked_to_planar, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

}  // namespace rskip
