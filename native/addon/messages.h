// Decodes messages of protocol buffers to JavaScript objects.
#pragma once

#include <napi.h>

namespace rskip {

// decodeFields(table: Int32Array, names: string[], message: number, bytes: Uint8Array, start: number, end: number,
//              piece: number, target: object): number
//
// Adds the fields of a message from `start` on to `target`, and returns where it stopped: at `end`, after `piece`
// bytes, or in front of a field that the caller must decode. That is one with at least `piece` bytes (but for strings
// and bytes), and whatever isn't plain: what is damaged, nested deeply, an integer that isn't safe, or a second packed
// list of a field.
//
// `table` begins with the positions in it of each message, and of its own end. From there on it has kFieldWords
// numbers for each field number of that message: the index of its name or -1, its type, whether it is repeated, and
// for a message which one. Types are numbered as in lib/model/read/native-messages.ts. A view of `bytes` stands for a
// field of bytes.
Napi::Value decode_fields(const Napi::CallbackInfo& info);

}  // namespace rskip
