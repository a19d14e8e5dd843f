#include "plan/kernel_instructions.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/bfloat16/pack16.h"
#include "kernels/matrix/pack.h"
#include "plan/simple_instruction.h"

namespace rskip {

decltype(KernelTable::conv) conv_kernel(const KernelTable& table, const PackedConv& conv) {
  switch (precision_of(conv.algorithm)) {
    case Precision::kBfloat16: return table.conv16;
    case Precision::kBfloat16Amx: return table.conv16_amx;
    case Precision::kFloat32: break;
  }
  return table.conv;
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
    args.x_pairs = o.x_pairs;
    args.y_pairs = o.y_pairs;
    args.scratch = scratch;
    kernel(args, part, parts);
  });
}

namespace {

class Gemm final : public Instruction {
 public:
  Gemm(const KernelTable& table, GemmOperands operands)
      : o_(std::move(operands)), kernel_(kernel_of(table, o_.precision)) {}
  int64_t shareable_work() const override { return saturating_product({o_.m, o_.k, o_.n}); }
  size_t scratch_bytes() const override {
    return is_bfloat16() ? gemm16_scratch_bytes(o_.k, o_.m) : gemm_scratch_bytes(*o_.gemm);
  }
  // With few rows, reading the weights takes longer than multiplying by them.
  int64_t joint_gain() const override {
    constexpr int64_t kManyRows = 18, kFewWeights = int64_t{1} << 16;
    const int64_t weights = int64_t{o_.k} * o_.n;
    if (is_bfloat16() || o_.gemm->weights.size() == 0 || o_.m >= kManyRows || weights < kFewWeights) return 0;
    return saturating_product({weights, kManyRows - o_.m}) / 2;
  }
  size_t joint_scratch_bytes() const override {
    return static_cast<size_t>(o_.m) * (row_floats(o_.k) + row_floats(o_.n)) * sizeof(float);
  }

 private:
  static decltype(KernelTable::gemm) kernel_of(const KernelTable& table, Precision precision) {
    switch (precision) {
      case Precision::kBfloat16: return table.gemm16;
      case Precision::kBfloat16Amx: return table.gemm16_amx;
      case Precision::kFloat32: break;
    }
    return table.gemm;
  }
  bool is_bfloat16() const { return o_.precision != Precision::kFloat32; }
  // With room for what makes a matrix begin at a whole vector.
  static size_t row_floats(int n) { return (static_cast<size_t>(n) + kLanes - 1) / kLanes * kLanes; }

  GemmArgs args(void* scratch, int m) const {
    GemmArgs args;
    args.scratch = scratch;
    args.gemm = o_.gemm.get();
    args.m = m;
    args.act = o_.act;
    return args;
  }

  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    GemmArgs args = this->args(workspace.scratch.data(), o_.m);
    args.a = frame.at<float>(o_.a);
    args.y = frame.at<float>(o_.y);
    args.residual = o_.has_residual ? frame.at<float>(o_.residual) : nullptr;
    kernel_(args, part, parts);
  }

  // Rows of all items one after the other: what a row gives doesn't depend on the others.
  void compute_joint(std::span<Frame* const> frames, Workspace& workspace, int part, int parts) const override {
    const size_t m = static_cast<size_t>(o_.m), k = static_cast<size_t>(o_.k), n = static_cast<size_t>(o_.n);
    const auto [begin, end] = share_of(o_.gemm->blocks(), part, parts);
    const size_t first = static_cast<size_t>(begin) * kLanes, last = std::min(n, static_cast<size_t>(end) * kLanes);
    if (first >= last) return;
    float* const a = reinterpret_cast<float*>(workspace.scratch.data());
    float* const y = a + frames.size() * m * row_floats(o_.k);
    const auto each_row = [&](const auto& copy) {
      const size_t bytes = (last - first) * sizeof(float);
      for (size_t i = 0; i < frames.size() * m; ++i) copy(*frames[i / m], y + i * n + first, i % m * n + first, bytes);
    };
    for (size_t i = 0; i < frames.size(); ++i) {
      std::memcpy(a + i * m * k, frames[i]->at<float>(o_.a), m * k * sizeof(float));
    }
    GemmArgs args = this->args(nullptr, static_cast<int>(frames.size() * m));
    args.a = a;
    args.y = y;
    if (o_.has_residual) {
      args.residual = y;
      each_row([&](Frame& frame, float* row, size_t at, size_t bytes) {
        std::memcpy(row, frame.at<float>(o_.residual) + at, bytes);
      });
    }
    kernel_(args, part, parts);
    each_row([&](Frame& frame, const float* row, size_t at, size_t bytes) {
      std::memcpy(frame.at<float>(o_.y) + at, row, bytes);
    });
  }

  const GemmOperands o_;
  const decltype(KernelTable::gemm) kernel_;
};

}  // namespace

InstructionPtr make_gemm(const KernelTable& table, GemmOperands operands) {
  return std::make_unique<Gemm>(table, std::move(operands));
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

namespace {

// Maps narrower than a vector become one row if their rows follow each other without a halo.
void join_rows(BlockedView& blocked, PlanarView& planar) {
  const int width = blocked.width;
  if (width >= kLanes || blocked.row_stride != ptrdiff_t{width} * kLanes || planar.row_stride != width) return;
  blocked.width = planar.width = width * blocked.height;
  blocked.height = planar.height = 1;
}

}  // namespace

InstructionPtr make_planar_to_blocked(const KernelTable& table, PlanarOperand x, BlockedOperand y) {
  join_rows(y.view, x.view);
  return simple(move_work(y.view), [kernel = table.planar_to_blocked, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

InstructionPtr make_blocked_to_planar(const KernelTable& table, BlockedOperand x, PlanarOperand y) {
  join_rows(x.view, y.view);
  return simple(move_work(x.view), [kernel = table.blocked_to_planar, x, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, y), part, parts);
  });
}

}  // namespace rskip
