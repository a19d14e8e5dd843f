// Instructions on rows and on matrices that are known at run time only.
#include <utility>

#include "kernels/bfloat16/pack16.h"
#include "plan/simple_instruction.h"

namespace rskip {
namespace {

NormArgs resolve(const Frame& frame, const NormOperands& o) {
  const auto vector = [&](const std::optional<Place>& place) { return place ? frame.at<float>(*place) : nullptr; };
  return {o.n, o.epsilon, vector(o.scale), vector(o.shift)};
}

// A function of a row takes about as long as some moves.
constexpr int64_t kRowWork = 4 * kMoveWork;

}  // namespace

InstructionPtr make_norm_rows(const KernelTable& table, Place x, const NormOperands& o, Place y, int64_t rows) {
  const int64_t work = saturating_product({rows, o.n, kRowWork});
  return simple(work, [kernel = table.norm_rows, x, o, y, rows](Frame& frame, int part, int parts) {
    const auto [begin, end] = share_of(rows, part, parts);
    kernel(frame.at<float>(x) + begin * o.n, resolve(frame, o), frame.at<float>(y) + begin * o.n, end - begin);
  });
}

InstructionPtr make_norm_channels(const KernelTable& table, BlockedOperand x, const NormOperands& o, BlockedOperand y) {
  return simple(4 * move_work(y.view), [kernel = table.norm_channels, x, o, y](Frame& frame, int part, int parts) {
    kernel(resolve(frame, x), resolve(frame, o), resolve(frame, y), part, parts);
  });
}

InstructionPtr make_softmax_rows(const KernelTable& table, Place x, Place y, int64_t rows, int64_t n, bool log) {
  const int64_t work = saturating_product({rows, n, kRowWork});
  return simple(work, [kernel = table.softmax_rows, x, y, rows, n, log](Frame& frame, int part, int parts) {
    const auto [begin, end] = share_of(rows, part, parts);
    kernel(frame.at<float>(x) + begin * n, frame.at<float>(y) + begin * n, end - begin, n, log);
  });
}

InstructionPtr make_binary_rows(const KernelTable& table, BinaryKind kind, Place a, Place b, Place y, ops::Rows<3> rows,
                                Activation act) {
  const int64_t count = rows.count(), n = rows.length();
  const int64_t work = saturating_product({count, n, kMoveWork});
  return simple(work, [=, kernel = table.binary_span, rows = std::move(rows)](Frame& frame, int part, int parts) {
    Poll poll(frame.cancellation);
    const auto run = [&](const std::array<int64_t, 3>& at, int64_t begin, int64_t length) {
      const auto [y_step, a_step, b_step] = rows.steps();
      kernel(kind, frame.at<float>(a) + at[1] + begin * a_step, static_cast<int>(a_step),
             frame.at<float>(b) + at[2] + begin * b_step, static_cast<int>(b_step),
             frame.at<float>(y) + at[0] + begin * y_step, static_cast<size_t>(length), act);
    };
    if (count == 1) {
      const auto [begin, end] = span_share(n, part, parts);
      return run({}, begin, end - begin);
    }
    const auto [begin, end] = share_of(count, part, parts);
    rows.each(begin, end, poll, [&](const auto& at, int64_t length, const auto&) { run(at, 0, length); });
  });
}

InstructionPtr make_affine_dense(const KernelTable& table, Place x, Place scale, Place shift, Place y,
                                 const ColumnShape& s, Activation act) {
  const int64_t work = saturating_product({s.outer, s.length, s.inner, kMoveWork});
  return simple(work, [=, kernel = table.affine_span](Frame& frame, int part, int parts) {
    // With nothing behind the axis, spans run along it.
    const bool along = s.inner == 1;
    const int64_t n = along ? s.length : s.inner;
    const auto [begin, end] = share_of(along ? s.outer : s.outer * s.length, part, parts);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = along ? 0 : i % s.length;
      kernel(frame.at<float>(x) + i * n, frame.at<float>(scale) + channel, frame.at<float>(shift) + channel,
             along ? 1 : 0, frame.at<float>(y) + i * n, static_cast<size_t>(n), act);
    }
  });
}

InstructionPtr make_softmax_columns(const KernelTable& table, Place x, Place y, const ColumnShape& shape, bool log) {
  const int64_t work = saturating_product({shape.outer, shape.length, shape.inner, kRowWork});
  return simple(work, [kernel = table.softmax_columns, x, y, shape, log](Frame& frame, int part, int parts) {
    kernel(frame.at<float>(x), frame.at<float>(y), shape, log, part, parts);
  });
}

InstructionPtr make_arg_max(const KernelTable& table, Place x, Place y, const ColumnShape& shape) {
  const int64_t work = saturating_product({shape.outer, shape.length, shape.inner, kMoveWork});
  if (shape.inner > 1) {
    return simple(work, [kernel = table.arg_max_columns, x, y, shape](Frame& frame, int part, int parts) {
      kernel(frame.at<float>(x), frame.at<int64_t>(y), shape, part, parts);
    });
  }
  return simple(work, [kernel = table.arg_max_rows, x, y, shape](Frame& frame, int part, int parts) {
    const auto [begin, end] = share_of(shape.outer, part, parts);
    kernel(frame.at<float>(x) + begin * shape.length, frame.at<int64_t>(y) + begin, end - begin, shape.length);
  });
}

InstructionPtr make_reduce_rows(const KernelTable& table, RowReduction kind, Place x, Place y, int64_t rows, int64_t n) {
  const int64_t work = saturating_product({rows, n, kMoveWork});
  return simple(work, [kernel = table.reduce_rows, kind, x, y, rows, n](Frame& frame, int part, int parts) {
    const auto [begin, end] = share_of(rows, part, parts);
    kernel(kind, frame.at<float>(x) + begin * n, frame.at<float>(y) + begin, end - begin, n);
  });
}

InstructionPtr make_resample(const KernelTable& table, Place x, Place places, Place factors, Place y, ResampleArgs args,
                             std::function<void()> out_of_range) {
  const ColumnShape& s = args.shape;
  const int64_t work = saturating_product({s.outer, args.count, args.each, s.inner, kMoveWork});
  const int64_t vectors = s.inner == 1 ? s.length + args.count : 0;
  const size_t bytes = static_cast<size_t>(saturating_product({vectors, kLanes, static_cast<int64_t>(sizeof(float))}));
  return with_scratch(work, bytes, [=, kernel = table.resample, fail = std::move(out_of_range)](
                                       Frame& frame, void* scratch, int part, int parts) {
    ResampleArgs a = args;
    a.places = frame.at<int32_t>(places);
    a.factors = frame.at<float>(factors);
    a.x = frame.at<float>(x);
    a.y = frame.at<float>(y);
    a.scratch = static_cast<float*>(scratch);
    for (int64_t i = 0; i < a.count * a.each; ++i) {
      if (a.places[i] < 0 || a.places[i] >= a.shape.length) fail();
    }
    kernel(a, part, parts);
  });
}

InstructionPtr make_products(const KernelTable& table, Place a, Place b, Place y, ProductsOperands o) {
  const int64_t count = static_cast<int64_t>(o.offsets.size() / 3);
  const int64_t work = saturating_product({count, o.m, o.k, o.n});
  const size_t bytes = static_cast<size_t>(saturating_product({o.k, kProductColumns, sizeof(float)}));
  return with_scratch(work, bytes, [kernel = table.products, a, b, y, count, o = std::move(o)](
                                       Frame& frame, void* scratch, int part, int parts) {
    ProductsArgs args;
    args.a = frame.at<float>(a);
    args.b = frame.at<float>(b);
    args.y = frame.at<float>(y);
    args.count = count;
    args.m = o.m;
    args.k = o.k;
    args.n = o.n;
    args.b_row = o.n;
    args.b_column = 1;
    args.offsets = o.offsets.data();
    args.scratch = static_cast<float*>(scratch);
    kernel(args, part, parts);
  });
}

InstructionPtr make_attention(const KernelTable& table, const AttentionShape& shape, AttentionPlaces places, Precision precision) {
  const int64_t work = saturating_product(
      {shape.batch, shape.heads, shape.queries, shape.keys, int64_t{shape.depth} + shape.value_depth});
  const bool in_float = precision == Precision::kFloat32;
  const int64_t bytes = in_float ? attention_scratch_bytes(shape) : attention16_scratch_bytes(shape);
  const auto kernel = in_float                              ? table.attention
                      : precision == Precision::kBfloat16 ? table.attention16
                                                            : table.attention16_amx;
  return with_scratch(work, static_cast<size_t>(bytes),
                      [kernel, shape, places](Frame& frame, void* scratch, int part, int parts) {
                        AttentionArgs args;
                        args.shape = &shape;
                        args.q = frame.at<float>(places.q);
                        args.k = frame.at<float>(places.k);
                        args.v = frame.at<float>(places.v);
                        if (places.mask) args.mask = frame.at<float>(*places.mask);
                        args.y = frame.at<float>(places.y);
                        args.scratch = static_cast<float*>(scratch);
                        kernel(args, part, parts);
                      });
}

}  // namespace rskip
