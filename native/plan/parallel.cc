#include "plan/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/fp_mode.h"

namespace rskip {

void parallel_for(int threads, int64_t n, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  const auto work = [&] {
    const FpModeScope fp_mode;
    for (int64_t i = next++; i < n && !failed.load(std::memory_order_relaxed); i = next++) {
      try {
        body(i);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  };
  std::vector<std::thread> helpers;
  const int64_t wanted = std::max<int64_t>(std::min<int64_t>(threads, n) - 1, 0);
  try {
    // Nothing may throw past threads that haven't been joined: their destructors would end the process.
    helpers.reserve(static_cast<size_t>(wanted));
    for (int64_t i = 0; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // Too many threads already.
  } catch (const std::bad_alloc&) {
    // No memory for another.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace rskip
