// Preloaded into a process: on threads other than the first, the FAIL_AT-th allocation that the addon asks for fails, and
// so do the next two on that thread, whoever asks.
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace {

bool of_addon(void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr && std::strstr(info.dli_fname, ".node") != nullptr;
}

bool fails(void* caller) {
  static const char* const fail_at = std::getenv("FAIL_AT");
  thread_local long calls = 0, left = 0;
  if (fail_at == nullptr || syscall(SYS_gettid) == getpid()) return false;
  if (left > 0) return left-- > 0;
  if (!of_addon(caller) || ++calls != std::atol(fail_at)) return false;
  left = 2;
  return true;
}

}  // namespace

void* operator new(size_t bytes) {
  if (!fails(__builtin_return_address(0))) {
    if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  }
  throw std::bad_alloc();
}
