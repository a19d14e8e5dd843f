#include "addon/process_memory.h"

#include <cstdint>

#include "addon/convert.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace rskip {

void discard(const Napi::CallbackInfo& info) {
  if (info.Length() > 0 && info[0].IsArrayBuffer()) info[0].As<Napi::ArrayBuffer>().Detach();
}

Napi::Value forget(const Napi::CallbackInfo& info) {
  const TypedBytes array = typed_bytes(info.Env(), info[0], "An array");
  bool done = false;
#if defined(__linux__)
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(array.data);
  const uintptr_t first = (start + page - 1) / page * page, end = (start + array.bytes) / page * page;
  done = first < end && madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED) == 0;
#endif
  return Napi::Boolean::New(info.Env(), done);
}

void return_freed(const Napi::CallbackInfo&) {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}

void stay_loaded() {
#if defined(_WIN32)
  HMODULE self;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<LPCSTR>(&stay_loaded), &self);
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&stay_loaded), &self) != 0) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
#endif
}

}  // namespace rskip
