// Loads on threads of its own, so that a session's workers stay free for the runs under way.
#pragma once

#include <cstdint>
#include <functional>

namespace rskip {

// body(0) ... body(n - 1), begun in this order, on the calling thread and up to `threads` - 1 others. When no more
// threads can be had, or no memory for them, it goes on with those it has. The first exception is rethrown when all have ended.
void parallel_for(int threads, int64_t n, const std::function<void(int64_t)>& body);

}  // namespace rskip
