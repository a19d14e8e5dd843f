// Times the convolution kernels on shapes from text files and prints GF/s and the share of the FMA peak that
// was measured on the spot. Winograd's GF/s are effective: the multiply-adds of direct convolution by time.
//
//   bench_kernels [--isa NAME] [--int8 | --bfloat16 | --bfloat16-amx] [--residual] [--pairs] [--budget MILLISECONDS] [--cold MIB] SHAPES.txt...
//
// --int8 times those on 8-bit numbers instead, beside the peak of their products; --bfloat16 and --bfloat16-amx those that
// a session in this precision takes.
// --residual adds a map to every result.
// --pairs: maps of --bfloat16-amx are pairs, as those between two of its convolutions are.
// --cold cycles through copies of the weights that together fill MIB, as the other layers of a network would
// push them out of the caches.
// Each line of a file is a convolution: channels in, out, height, width, kernel, stride, pad, groups.
// Every time is the least of as many runs as fit into the budget (40 ms) per shape and algorithm.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/bfloat16/pack16.h"
#include "kernels/int8/pack8.h"
#include "kernels/matrix/pack.h"
#include "kernels/peak.h"
#include "kernels/table.h"
#include "kernels/int8/table8.h"

namespace {

using namespace rskip;

struct Options {
  std::vector<const KernelTable*> tables;
  bool int8 = false, residual = false, pairs = false;
  Precision precision = Precision::kFloat32;
  double budget_ms = 40;
  double cold_mib = 0;
  std::vector<std::string> files;
};

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "bench_kernels: %s\n", message.c_str());
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  std::string isa;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--isa" || arg == "--budget" || arg == "--cold") {
      if (++i == argc) fail(arg + " needs a value");
      if (arg == "--isa") {
        isa = argv[i];
      } else {
        (arg == "--cold" ? options.cold_mib : options.budget_ms) = std::atof(argv[i]);
      }
    } else if (arg == "--int8") {
      options.int8 = true;
    } else if (arg == "--bfloat16") {
      options.precision = Precision::kBfloat16;
    } else if (arg == "--bfloat16-amx") {
      options.precision = Precision::kBfloat16Amx;
    } else if (arg == "--residual") {
      options.residual = true;
    } else if (arg == "--pairs") {
      options.pairs = true;
    } else if (arg.rfind("--", 0) == 0) {
      fail("unknown option " + arg);
    } else {
      options.files.push_back(arg);
    }
  }
  for (const KernelTable* table : available_tables()) {
    const bool wanted = isa.empty() ? table->isa != Isa::kScalar : isa == table->name;
    if (wanted) options.tables.push_back(table);
  }
  if (options.tables.empty()) fail("this machine can't run instruction set '" + isa + "'");
  if (options.files.empty()) fail("name at least one file of shapes");
  return options;
}

// A map of zeros with the halo that a convolution wants.
template <class T>
struct Map {
  Aligned<T> storage;
  Blocked<T> blocked;
  Planar<T> planar;
  Map(int channels, int height, int width, Halo halo) {
    const ptrdiff_t rows = height + halo.top + halo.bottom;
    const ptrdiff_t columns = width + halo.left + halo.right;
    blocked = {nullptr, channels, height, width, columns * kLanes, columns * rows * kLanes};
    planar = {nullptr, channels, height, width, columns, columns * rows};
    storage = Aligned<T>(static_cast<size_t>(blocked.block_stride) * blocked.blocks());
    storage.zero();
    blocked.data = storage.data() + halo.top * blocked.row_stride + halo.left * kLanes;
    planar.data = storage.data() + halo.top * columns + halo.left;
  }
};

// Copies of packed weights that together fill the cold memory.
template <class Pack>
auto copies(const Options& options, const Pack& pack) {
  std::vector<decltype(pack())> packed;
  size_t bytes = 0;
  do {
    packed.push_back(pack());
    bytes += packed.back()->weights.bytes();
  } while (bytes < options.cold_mib * (1 << 20));
  return packed;
}

// The least of as many runs of `kernel` as fit into the budget.
template <class Args, class Packed>
double least_time(void (*kernel)(const Args&, int, int), Args& args, const Packed& packed, const Options& options) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  const auto stop = Clock::now() + std::chrono::duration<double, std::milli>(options.budget_ms);
  size_t run = 0;
  do {
    args.conv = packed[run++ % packed.size()].get();
    const auto start = Clock::now();
    kernel(args, 0, 1);
    best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  } while (Clock::now() < stop);
  return best;
}

double milliseconds(const KernelTable& table, const ConvShape& shape, ConvAlgorithm algorithm,
                    const Options& options) {
  const size_t k = static_cast<size_t>(shape.in_channels / shape.groups) * shape.kernel_h * shape.kernel_w;
  if (options.int8) {
    const std::vector<int8_t> weight(k * shape.out_channels, 3);
    const float scale = 0.01f;
    const auto packed =
        copies(options, [&] { return pack_conv8(shape, algorithm, weight.data(), nullptr, &scale, 1, 0); });
    Map<uint8_t> x(shape.in_channels, shape.in_height, shape.in_width, conv8_input_halo(shape, algorithm));
    Map<uint8_t> y(shape.out_channels, shape.out_height, shape.out_width, {});
    Map<uint8_t> residual(shape.out_channels, shape.out_height, shape.out_width, {});
    ConvArgs8 args;
    if (options.residual) args.residual = &residual.blocked;
    args.x = x.blocked;
    args.x_planar = x.planar;
    args.y = y.blocked;
    Aligned<uint8_t> scratch(conv8_scratch_bytes(*packed[0], table.isa));
    args.scratch = scratch.data();
    return least_time(table.conv8, args, packed, options);
  }
  const std::vector<float> weight(k * shape.out_channels, 0.01f);
  const auto packed = copies(options, [&] { return pack_conv(shape, algorithm, weight.data(), nullptr); });
  ConvArgs args;
  args.x_pairs = options.pairs && algorithm == ConvAlgorithm::kBfloat16Amx;
  args.y_pairs = options.pairs && precision_of(algorithm) == Precision::kBfloat16Amx;
  const auto held = [](int channels, bool pairs) { return pairs ? channels_of_pairs(channels) : channels; };
  Map<float> x(held(shape.in_channels, args.x_pairs), shape.in_height, shape.in_width, conv_input_halo(shape, algorithm));
  Map<float> y(held(shape.out_channels, args.y_pairs), shape.out_height, shape.out_width, {});
  Map<float> residual(shape.out_channels, shape.out_height, shape.out_width, {});
  AlignedFloats scratch(conv_scratch_bytes(*packed[0]) / sizeof(float));
  if (options.residual) args.residual = &residual.blocked;
  args.x = x.blocked;
  args.x_planar = x.planar;
  args.y = y.blocked;
  args.act = {ActivationKind::kRelu, 0, 0};
  args.scratch = scratch.data();
  const Precision precision = precision_of(algorithm);
  const auto kernel = precision == Precision::kFloat32    ? table.conv
                      : precision == Precision::kBfloat16 ? table.conv16
                                                          : table.conv16_amx;
  return least_time(kernel, args, packed, options);
}

const char* name_of(ConvAlgorithm algorithm) {
  switch (algorithm) {
    case ConvAlgorithm::kDirect:
      return "direct";
    case ConvAlgorithm::kPlanar:
      return "planar";
    case ConvAlgorithm::kDepthwise:
      return "depthwise";
    case ConvAlgorithm::kGrouped:
      return "grouped";
    case ConvAlgorithm::kWinograd2:
      return "winograd2";
    case ConvAlgorithm::kWinograd4:
      return "winograd4";
    case ConvAlgorithm::kBfloat16:
      return "bfloat16";
    case ConvAlgorithm::kPlanarBfloat16:
      return "planar16";
    case ConvAlgorithm::kBfloat16Amx:
      return "amx16";
    case ConvAlgorithm::kPlanarBfloat16Amx:
      return "planaramx";
  }
  return "";
}

const char* unit_of(const Options& options) { return options.int8 ? "GOP/s" : "GF/s"; }

void bench_line(const Options& options, const ConvShape& shape, const std::vector<double>& peaks) {
  const double flops = 2.0 * shape.out_channels * shape.out_height * shape.out_width * shape.in_channels /
                       shape.groups * shape.kernel_h * shape.kernel_w;
  for (size_t i = 0; i < options.tables.size(); ++i) {
    const ConvAlgorithm chosen =
        !options.int8 ? choose_conv_algorithm(shape, options.precision)
        : winograd8_suits(shape, options.tables[i]->isa) ? ConvAlgorithm::kWinograd4
                                                         : choose_conv8_algorithm(shape);
    std::vector<ConvAlgorithm> algorithms = {chosen};
    if (!options.int8 && options.precision == Precision::kFloat32 && winograd_applies(shape)) {
      algorithms = {ConvAlgorithm::kDirect, ConvAlgorithm::kWinograd2, ConvAlgorithm::kWinograd4};
    } else if (options.int8 && chosen == ConvAlgorithm::kWinograd4) {
      algorithms = {ConvAlgorithm::kDirect, chosen};
    }
    for (ConvAlgorithm algorithm : algorithms) {
      const double ms = milliseconds(*options.tables[i], shape, algorithm, options);
      const double gflops = flops / ms * 1e-6;
      std::printf("%4d %4d %3dx%-3d %dx%d/%d g%-4d %-7s %-10s%s %9.4f ms %7.1f %s %4.0f %%\n", shape.in_channels,
                  shape.out_channels, shape.in_height, shape.in_width, shape.kernel_h, shape.kernel_w, shape.stride_h,
                  shape.groups, options.tables[i]->name, name_of(algorithm), algorithm == chosen ? "*" : " ", ms,
                  gflops, unit_of(options), 100 * gflops / peaks[i]);
      std::fflush(stdout);
    }
  }
}

void bench_file(const Options& options, const std::string& path, const std::vector<double>& peaks) {
  std::ifstream file(path);
  if (!file) fail("can't read " + path);
  std::printf("%s (* marks the algorithm that the shape selects)\n", path.c_str());
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    ConvShape s;
    int kernel = 0, stride = 0, pad = 0;
    fields >> s.in_channels >> s.out_channels >> s.in_height >> s.in_width >> kernel >> stride >> pad >> s.groups;
    if (!fields || stride < 1 || s.groups < 1) fail("bad line in " + path + ": " + line);
    s.kernel_h = s.kernel_w = kernel;
    s.stride_h = s.stride_w = stride;
    s.pad = {pad, pad, pad, pad};
    s.out_height = (s.in_height + 2 * pad - kernel) / stride + 1;
    s.out_width = (s.in_width + 2 * pad - kernel) / stride + 1;
    bench_line(options, s, peaks);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  std::vector<double> peaks;
  for (const KernelTable* table : options.tables) {
    peaks.push_back(options.int8 ? measure_dot_peak_gops(table->isa) : measure_fma_peak_gflops(table->isa));
    std::printf("peak of one thread, %s: %.1f %s\n", table->name, peaks.back(), unit_of(options));
  }
  for (const std::string& file : options.files) bench_file(options, file, peaks);
  return 0;
}
