#include "addon/drawing.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "image/jpeg.h"
#include "kernels/aligned_buffer.h"
#include "kernels/int8/table8.h"

namespace rskip {
namespace {

constexpr size_t kNumbers = 9;
constexpr int kMaxPlanes = 4;
// Factors of a window may add up to more than 1, but not so much that a sum leaves 32 bits.
constexpr int64_t kMaxFactors = int64_t{7} << kDrawBits;

// Work on arrays of JavaScript's, on a thread of the event loop's pool.
class ArrayWork final : public Napi::AsyncWorker {
 public:
  // `work` is called once, and returns what the promise resolves to.
  ArrayWork(Napi::Env env, const std::vector<Napi::Value>& arrays, std::function<bool()> work)
      : Napi::AsyncWorker(env, "residual-skip image"),
        work_(std::move(work)),
        pinned_(Napi::Reference<Napi::Value>::New(list_of(env, arrays), 1)),
        deferred_(Napi::Promise::Deferred::New(env)) {}

  static Napi::Promise start(Napi::Env env, const std::vector<Napi::Value>& arrays, std::function<bool()> work) {
    auto worker = std::make_unique<ArrayWork>(env, arrays, std::move(work));
    const Napi::Promise promise = worker->deferred_.Promise();
    worker.release()->Queue();  // deletes itself
    return promise;
  }

 private:
  void Execute() override {
    try {
      result_ = work_();
    } catch (...) {
      error_.emplace(current_error());
    }
  }

  void OnOK() override {
    settle(Env(), deferred_, [&]() -> Napi::Value {
      if (error_) throw *error_;
      return Napi::Boolean::New(Env(), result_);
    });
  }

  const std::function<bool()> work_;
  bool result_ = false;
  const Napi::Reference<Napi::Value> pinned_;  // keeps the arrays
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
    const auto sources = std::make_shared<std::vector<int32_t>>(numbers.begin() + kNumbers, numbers.end());
    args.planes = static_cast<int>(sources->size());
    // What is checked is copied, as JavaScript may go on writing.
    const auto axes = std::make_shared<std::vector<int32_t>>();
    size_t ends[4];
    for (uint32_t i = 0; i < 4; ++i) {
      const std::span<const int32_t> part = typed_span<int32_t>(env, info[2 + i], "An axis");
      axes->insert(axes->end(), part.begin(), part.end());
      ends[i] = axes->size();
    }
    check(axes->size() <= std::numeric_limits<int32_t>::max());
    args.columns = {static_cast<int>(ends[0]), numbers[7], axes->data(), axes->data() + ends[0]};
    args.rows = {static_cast<int>(ends[2] - ends[1]), numbers[8], axes->data() + ends[1], axes->data() + ends[2]};
    args.sources = sources->data();
    check(args.width > 0 && args.height > 0 && args.channels > 0 && args.channels <= kMaxPlanes);
    check(pixels.size() / static_cast<size_t>(args.width) / static_cast<size_t>(args.channels) >= static_cast<size_t>(args.height));
    check(std::ranges::all_of(*sources, [&](int32_t source) { return source >= 0 && source < args.channels; }));
    check(fits(args.columns, ends[1] - ends[0], args.width) && fits(args.rows, ends[3] - ends[2], args.height));
    check(args.left >= 0 && args.left <= args.plane_width - args.columns.count);
    check(args.top >= 0 && args.top <= args.plane_height - args.rows.count);
    check(tables.size() >= sources->size() * 256);
    check(output.size() / sources->size() / static_cast<size_t>(args.plane_width) >= static_cast<size_t>(args.plane_height));
    return ArrayWork::start(env, {info[0], info[6], info[7]}, [args, axes, sources]() mutable {
      AlignedBuffer scratch;
      scratch.reserve(static_cast<size_t>(draw_scratch_bytes(args)));
      args.scratch = reinterpret_cast<uint8_t*>(scratch.data());
      best_table()->draw8(args);
      return true;
    });
  });
}

Napi::Value decode_jpeg(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return translated(env, [&]() -> Napi::Value {
    const auto check = [](bool ok) {
      if (!ok) throw EngineError(ErrorCode::kInvalidArgument, "decodeJpeg: wrong arguments");
    };
    check(info.Length() == 3);
    const std::span<const uint8_t> file = typed_span<uint8_t>(env, info[0], "The file");
    const std::span<const int32_t> numbers = typed_span<int32_t>(env, info[1], "The numbers");
    const std::span<uint8_t> pixels = typed_span<uint8_t>(env, info[2], "The pixels");
    check(numbers.size() == 5);
    const JpegRequest request{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    const auto is_side = [](int side) { return side > 0 && side <= 0xffff; };
    check(is_side(request.width) && is_side(request.height) && (request.channels == 1 || request.channels == 3));
    check(request.shrink == 1 || request.shrink == 2 || request.shrink == 4 || request.shrink == 8);
    check(request.orientation >= 1 && request.orientation <= 8);
    check(pixels.size() == static_cast<size_t>(request.columns()) * static_cast<size_t>(request.rows()) * static_cast<size_t>(request.channels));
    return ArrayWork::start(env, {info[0], info[2]}, [=] { return rskip::decode_jpeg(file, request, *best_table(), pixels.data()); });
  });
}

}  // namespace rskip
