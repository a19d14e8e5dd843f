#include "addon/drawing.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "kernels/aligned_buffer.h"
#include "kernels/int8/table8.h"

namespace rskip {
namespace {

constexpr size_t kNumbers = 9;
constexpr int kMaxPlanes = 4;
// Factors of a window may add up to more than 1, but not so much that a sum leaves 32 bits.
constexpr int64_t kMaxFactors = int64_t{7} << kDrawBits;

class Drawing final : public Napi::AsyncWorker {
 public:
  Drawing(Napi::Env env, const DrawArgs8& args, std::vector<int32_t> axes, std::vector<int32_t> sources,
          const std::vector<Napi::Value>& arrays)
      : Napi::AsyncWorker(env, "residual-skip draw"),
        args_(args),
        axes_(std::move(axes)),
        sources_(std::move(sources)),
        pinned_(Napi::Reference<Napi::Value>::New(list_of(env, arrays), 1)),
        deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      AlignedBuffer scratch;
      scratch.reserve(static_cast<size_t>(draw_scratch_bytes(args_)));
      args_.scratch = reinterpret_cast<uint8_t*>(scratch.data());
      best_table()->draw8(args_);
    } catch (...) {
      error_.emplace(current_error());
    }
  }

  void OnOK() override {
    settle(Env(), deferred_, [&]() -> Napi::Value {
      if (error_) throw *error_;
      return Env().Undefined();
    });
  }

  DrawArgs8 args_;
  // Copies of what was checked.
  const std::vector<int32_t> axes_, sources_;
  const Napi::Reference<Napi::Value> pinned_;  // keeps the pixels, the tables and the output
  const Napi::Promise::Deferred deferred_;
  std::optional<EngineError> error_;
};

// Whether an axis takes elements of the `length` that there are, and no sum of them leaves 32 bits.
bool fits(const DrawAxis8& axis, size_t factors, int length) {
  if (axis.count < 1 || axis.each < 1 || axis.each > length) return false;
  if (factors / static_cast<size_t>(axis.each) != static_cast<size_t>(axis.count) || factors % static_cast<size_t>(axis.each) != 0) return false;
  int least = 0;
  for (int i = 0; i < axis.count; ++i) {
    const int first = axis.firsts[i];
    if (first < least || first > length - axis.each) return false;
    least = first;
    int64_t sum = 0;
    for (int j = 0; j < axis.each; ++j) sum += std::abs(int64_t{axis.factors[static_cast<ptrdiff_t>(i) * axis.each + j]});
    if (sum > kMaxFactors) return false;
  }
  return true;
}

}  // namespace

Napi::Value draw(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    const auto check = [](bool ok) {
      if (!ok) throw EngineError(ErrorCode::kInvalidArgument, "draw: wrong arguments");
    };
    check(info.Length() == 8);
    const std::span<const int32_t> numbers = typed_span<int32_t>(env, info[1], "The numbers");
    check(numbers.size() > kNumbers && numbers.size() <= kNumbers + kMaxPlanes);
    const std::span<const uint8_t> pixels = typed_span<uint8_t>(env, info[0], "The pixels");
    const std::span<const float> tables = typed_span<float>(env, info[6], "The tables");
    const std::span<float> output = typed_span<float>(env, info[7], "The output");
    DrawArgs8 args;
    args.pixels = pixels.data();
    args.tables = tables.data();
    args.output = output.data();
    args.width = numbers[0], args.height = numbers[1], args.channels = numbers[2];
    args.plane_width = numbers[3], args.plane_height = numbers[4], args.left = numbers[5], args.top = numbers[6];
    args.columns.each = numbers[7], args.rows.each = numbers[8];
    std::vector<int32_t> sources(numbers.begin() + kNumbers, numbers.end());
    args.planes = static_cast<int>(sources.size());
    // What is checked is copied, as JavaScript may go on writing.
    std::vector<int32_t> axes;
    size_t ends[4];
    for (uint32_t i = 0; i < 4; ++i) {
      const std::span<const int32_t> part = typed_span<int32_t>(env, info[2 + i], "An axis");
      axes.insert(axes.end(), part.begin(), part.end());
      ends[i] = axes.size();
    }
    check(axes.size() <= std::numeric_limits<int32_t>::max());
    args.columns = {static_cast<int>(ends[0]), numbers[7], axes.data(), axes.data() + ends[0]};
    args.rows = {static_cast<int>(ends[2] - ends[1]), numbers[8], axes.data() + ends[1], axes.data() + ends[2]};
    args.sources = sources.data();
    check(args.width > 0 && args.height > 0 && args.channels > 0 && args.channels <= kMaxPlanes);
    check(pixels.size() / static_cast<size_t>(args.width) / static_cast<size_t>(args.channels) >= static_cast<size_t>(args.height));
    check(std::ranges::all_of(sources, [&](int32_t source) { return source >= 0 && source < args.channels; }));
    check(fits(args.columns, ends[1] - ends[0], args.width) && fits(args.rows, ends[3] - ends[2], args.height));
    check(args.left >= 0 && args.left <= args.plane_width - args.columns.count);
    check(args.top >= 0 && args.top <= args.plane_height - args.rows.count);
    check(tables.size() >= sources.size() * 256);
    check(output.size() / sources.size() / static_cast<size_t>(args.plane_width) >= static_cast<size_t>(args.plane_height));
    const std::vector<Napi::Value> arrays{info[0], info[6], info[7]};
    auto drawing = std::make_unique<Drawing>(env, args, std::move(axes), std::move(sources), arrays);
    const Napi::Promise promise = drawing->promise();
    drawing.release()->Queue();  // deletes itself
    return promise;
  });
}

}  // namespace rskip
