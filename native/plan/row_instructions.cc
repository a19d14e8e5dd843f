// Instructions on rows and on matrices that are known at run time only.
#include <utility>

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

InstructionPtr make_attention(const KernelTable& table, const AttentionShape& shape, AttentionPlaces places) {
  const int64_t work = saturating_product(
      {shape.batch, shape.heads, shape.queries, shape.keys, int64_t{shape.depth} + shape.value_depth});
  return with_scratch(work, static_cast<size_t>(attention_scratch_bytes(shape)),
                      [kernel = table.attention, shape, places](Frame& frame, void* scratch, int part, int parts) {
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
