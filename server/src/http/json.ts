import { TextDecoder } from 'node:util';
import type { z } from 'zod';
import { ServerError } from '../errors.js';

/** Shorter JSON can't hold enough to take long. */
const CHECKED_FROM = 16 << 10;
/** What a request needs: lists in lists for each axis of a tensor, and a few names for each input and output. */
const MAX_DEPTH = 64;
const MAX_NAMES = 1 << 14;
/** Rows of tensors, which are lists. */
const MAX_LISTS = 1 << 16;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** @throws ServerError INVALID_ARGUMENT */
export function parseJson(bytes: Uint8Array): unknown {
  if (bytes.length > CHECKED_FROM) checkStructure(bytes);
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `body: it is not JSON (${(cause as Error).message}); send JSON, or name its length in Inference-Header-Content-Length if tensors follow it`,
      { cause },
    );
  }
}

/** @throws ServerError INVALID_ARGUMENT */
export function parseJsonAs<T>(bytes: Uint8Array, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(parseJson(bytes));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const { message } = issue!;
  // zod begins its messages in upper case.
  const lowerCased = message.charAt(0).toLowerCase() + message.slice(1);
  throw new ServerError('INVALID_ARGUMENT', `${issue!.path.join('.') || 'body'}: ${lowerCased}`);
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Refuses what takes far longer to build in memory than numbers and texts of the same length: deep nesting, and many names and lists.
 * Whether it is JSON at all isn't checked.
 */
function checkStructure(bytes: Uint8Array): void {
  let [depth, names, lists] = [0, 0, 0];
  for (let at = 0; at < bytes.length; at++) {
    switch (bytes[at]) {
      case QUOTE:
        // To the end of the text; a byte of a longer character is none of these.
        for (at++; at < bytes.length && bytes[at] !== QUOTE; at++) if (bytes[at] === BACKSLASH) at++;
        break;
      case COLON:
        if (++names > MAX_NAMES) throw tooMuch(`more than ${MAX_NAMES} names`);
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        if (++depth > MAX_DEPTH) throw tooMuch(`more than ${MAX_DEPTH} lists and objects in each other`);
        if (++lists > MAX_LISTS) throw tooMuch(`more than ${MAX_LISTS} lists and objects`);
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        depth--;
    }
  }
}

function tooMuch(what: string): ServerError {
  return new ServerError(
    'INVALID_ARGUMENT',
    `body: its JSON has ${what}; send tensors in binary, or as a flat list of numbers`,
  );
}
