// Functions of Node-API about the memory of this process.
#pragma once

#include <napi.h>

namespace rskip {

// discard(buffer: ArrayBuffer): void. Detaches it, which frees its memory now rather than when garbage is collected.
void discard(const Napi::CallbackInfo& info);

// forget(array: TypedArray): boolean. Gives the memory of its whole pages back to the system, which loses their
// elements; false where that can't be done.
Napi::Value forget(const Napi::CallbackInfo& info);

// returnFreed(): void. From now on, blocks of 4 MiB or more are given back to the system as soon as they are freed.
// Otherwise the C library keeps blocks of up to 32 MiB, for each of its threads, once one of that size has been freed.
void return_freed(const Napi::CallbackInfo& info);

// Keeps the addon in memory until the process ends. Node unloads it with the last worker that uses it, but a C++
// library that is linked into it has registered functions that run when a thread or the process ends.
void stay_loaded();

}  // namespace rskip
