// Times oneDNN's convolutions on the shapes of bench_kernels, in the same form: unsigned inputs and results, signed weights with a
// scale for each output channel, ReLU, and, with --residual, the sum with the map that the result takes the place of. Weights are in
// oneDNN's own layout, maps with channels last; with --float and --bfloat16, both in its own layout and of one type.
//
//   g++ -O2 -std=c++20 bench/kernels/bench_onednn.cc -ldnnl -o bench_onednn    # needs Debian's libdnnl-dev
//   OMP_NUM_THREADS=1 bench_onednn [--float | --bfloat16] [--residual] [--budget MILLISECONDS] SHAPES.txt...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

struct Shape {
  int64_t in = 0, out = 0, height = 0, width = 0, kernel = 1, stride = 1, pad = 0, groups = 1;
};

// The least of as many runs as fit into the budget.
double least_time(const Shape& s, Type input, bool residual, double budget_ms) {
  using Clock = std::chrono::steady_clock;
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const bool is_float = input != Type::u8;
  const Type weight = is_float ? input : Type::s8;
  const int64_t out_height = (s.height + 2 * s.pad - s.kernel) / s.stride + 1;
  const int64_t out_width = (s.width + 2 * s.pad - s.kernel) / s.stride + 1;
  const memory::desc x({1, s.in, s.height, s.width}, input, is_float ? Tag::any : Tag::nhwc);
  const memory::desc y({1, s.out, out_height, out_width}, input, is_float ? Tag::any : Tag::nhwc);
  memory::dims dims = {s.out, s.in, s.kernel, s.kernel};
  if (s.groups > 1) dims = {s.groups, s.out / s.groups, s.in / s.groups, s.kernel, s.kernel};
  const memory::desc w(dims, weight, Tag::any), b({s.out}, is_float ? Type::f32 : Type::s32, Tag::a);
  dnnl::primitive_attr attributes;
  dnnl::post_ops operations;
  if (!is_float) {
    attributes.set_scales_mask(DNNL_ARG_SRC, 0);
    attributes.set_scales_mask(DNNL_ARG_WEIGHTS, s.groups > 1 ? 3 : 1);
    attributes.set_scales_mask(DNNL_ARG_DST, 0);
  }
  if (residual) operations.append_sum(0.5f);
  operations.append_eltwise(dnnl::algorithm::eltwise_relu, 0, 0);
  attributes.set_post_ops(operations);
  const dnnl::convolution_forward::primitive_desc description(
      engine, dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, x, w, b, y, {s.stride, s.stride},
      {s.pad, s.pad}, {s.pad, s.pad}, attributes);
  const dnnl::convolution_forward convolution(description);
  const auto zeros = [&](const memory::desc& d) {
    memory m(d, engine);
    std::fill_n(static_cast<char*>(m.get_data_handle()), d.get_size(), 0);
    return m;
  };
  const auto scales = [&](int64_t n) {
    memory m({{n}, Type::f32, Tag::a}, engine);
    std::fill_n(static_cast<float*>(m.get_data_handle()), n, 0.01f);
    return m;
  };
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, zeros(description.src_desc())},
      {DNNL_ARG_WEIGHTS, zeros(description.weights_desc())},
      {DNNL_ARG_BIAS, zeros(description.bias_desc())},
      {DNNL_ARG_DST, zeros(description.dst_desc())},
      {DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, scales(1)},
      {DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, scales(s.out)},
      {DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, scales(1)},
  };
  double best = 1e30;
  const auto stop = Clock::now() + std::chrono::duration<double, std::milli>(budget_ms);
  do {
    const auto start = Clock::now();
    convolution.execute(stream, arguments);
    stream.wait();
    best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  } while (Clock::now() < stop);
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  Type input = Type::u8;
  bool residual = false;
  double budget_ms = 40;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--float" || arg == "--bfloat16") {
      input = arg == "--float" ? Type::f32 : Type::bf16;
      continue;
    }
    if (arg == "--residual") {
      residual = true;
      continue;
    }
    if (arg == "--budget" && i + 1 < argc) {
      budget_ms = std::atof(argv[++i]);
      continue;
    }
    std::ifstream file(arg);
    if (!file) {
      std::fprintf(stderr, "bench_onednn: can't read %s\n", arg.c_str());
      return 2;
    }
    std::string line;
    while (std::getline(file, line)) {
      if (line.empty() || line[0] == '#') continue;
      Shape s;
      std::istringstream(line) >> s.in >> s.out >> s.height >> s.width >> s.kernel >> s.stride >> s.pad >> s.groups;
      const int in = static_cast<int>(s.in), out = static_cast<int>(s.out), kernel = static_cast<int>(s.kernel);
      std::printf("%4d %4d %3dx%-3d %dx%d/%d g%-4d %9.4f ms\n", in, out, static_cast<int>(s.height), static_cast<int>(s.width), kernel,
                  kernel, static_cast<int>(s.stride), static_cast<int>(s.groups), least_time(s, input, residual, budget_ms));
      std::fflush(stdout);
    }
  }
  return 0;
}
