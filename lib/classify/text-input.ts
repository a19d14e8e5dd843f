/** Texts as they are given. */
import { ResidualSkipError } from '../errors.js';

/** A text, or a pair of them for networks that compare two. */
export type TextInput = string | { readonly text: string; readonly pair: string };

/** The texts of a call, and whether it had one or several. */
export function textsOf(
  what: string,
  texts: unknown,
): { readonly list: readonly TextInput[]; readonly one: boolean } {
  const one = isTextInput(texts);
  const list = one ? [texts] : texts;
  if (Array.isArray(list) && list.every(isTextInput)) return { list, one };
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `${what}: expected a text, a pair { text, pair }, or an array of them`,
  );
}

export function isTextInput(value: unknown): value is TextInput {
  if (typeof value === 'string') return true;
  if (typeof value !== 'object' || value === null) return false;
  return (
    'text' in value && typeof value.text === 'string' && 'pair' in value && typeof value.pair === 'string'
  );
}
