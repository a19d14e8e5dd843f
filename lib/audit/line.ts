/**
 * Writes the text of a line of the audit log as bytes: without a string for each number or an object for each field.
 */

/** Powers of ten that a double holds exactly. */
const POWERS = Array.from({ length: 23 }, (_, i) => 10 ** i);
const [ZERO, MINUS, POINT] = [48, 45, 46];
const DIGITS = Buffer.from('0123456789abcdef');
/** Smaller integers have at most nine digits and are small integers to the compiler, too. */
const BILLION = 1e9;
/** Room before the text, for the link of the previous line. */
const ROOM = 64;
/** Most bytes in UTF-8 for one unit of UTF-16. */
const MAX_BYTES_OF_A_UNIT = 3;
/** More than any number needs. */
const NUMBER_BYTES = 32;

/**
 * Number of decimals of the shortest decimal of 6 to 9 digits that is the same float32; undefined if that can't be
 * written as a quotient of two exact doubles, which would equal the double read from its text.
 */
function decimalsOf(signed: number): number | undefined {
  const value = Math.abs(signed);
  // Six digits: the number times a power of ten is at least 10^5.
  let decimals = 0;
  while (value * POWERS[decimals]! < 1e5) decimals++;
  for (const max = decimals + 3; decimals <= max; decimals++) {
    const power = POWERS[decimals];
    if (power === undefined) return undefined;
    const whole = Math.round(value * power);
    if (whole < BILLION && Math.fround(whole / power) === value) return decimals;
  }
  return undefined;
}

/** A short decimal that is the same float32; null for null and for what is not finite. */
export function shortFloat(value: number | null): number | null {
  if (value === null || !Number.isFinite(value)) return null;
  if (value === 0) return 0;
  const decimals = decimalsOf(value);
  if (decimals !== undefined) {
    const size = Math.round(Math.abs(value) * POWERS[decimals]!) / POWERS[decimals]!;
    return value < 0 ? -size : size;
  }
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/** A line in a buffer that grows as needed and is reused for one line after another. */
export class LineText {
  #bytes: Buffer = Buffer.allocUnsafeSlow(2 ** 12);
  #end = ROOM;

  clear(): void {
    this.#end = ROOM;
  }

  get length(): number {
    return this.#end - ROOM;
  }

  /** The line so far. Valid until the next write. */
  text(): Buffer {
    return this.#bytes.subarray(ROOM, this.#end);
  }

  /** Copies the line so far to a position in `target` with enough room. */
  copyTo(target: Buffer, at: number): void {
    this.#bytes.copy(target, at, ROOM, this.#end);
  }

  /** The line so far, after what `before` has put in front of it. */
  withRoom(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }

  /** @param link 64 characters */
  before(link: string): void {
    for (let i = 0; i < ROOM; i++) this.#bytes[i] = link.charCodeAt(i);
  }

  /** Removes this many bytes at the end. */
  back(bytes: number): void {
    this.#end -= bytes;
  }

  ascii(text: string): void {
    this.#makeRoom(text.length);
    for (let i = 0; i < text.length; i++) this.#bytes[this.#end + i] = text.charCodeAt(i);
    this.#end += text.length;
  }

  /** Part of `bytes` as hexadecimal digits. */
  hex(bytes: Uint8Array, from: number, to: number): void {
    this.#makeRoom(2 * (to - from));
    for (let i = from; i < to; i++) {
      this.#bytes[this.#end++] = DIGITS[bytes[i]! >> 4]!;
      this.#bytes[this.#end++] = DIGITS[bytes[i]! & 15]!;
    }
  }

  /** Any value as JSON. */
  json(value: unknown): void {
    const text = JSON.stringify(value);
    this.#makeRoom(MAX_BYTES_OF_A_UNIT * text.length);
    this.#end += this.#bytes.write(text, this.#end);
  }

  /** A float32 as written by `shortFloat`. */
  float(value: number | null): void {
    if (value === null) {
      this.ascii('null');
      return;
    }
    const size = Math.abs(value);
    const decimals = size >= 1e-6 && size < BILLION ? decimalsOf(size) : undefined;
    if (decimals === undefined) this.json(shortFloat(value));
    else this.#decimal(value < 0, Math.round(size * POWERS[decimals]!), decimals);
  }

  /** A number of at most 2^53, rounded to this many decimals, at most 9. */
  fixed(value: number, decimals: number): void {
    const whole = Math.round(Math.abs(value) * POWERS[decimals]!);
    if (whole <= Number.MAX_SAFE_INTEGER) this.#decimal(value < 0, whole, decimals);
    else this.json(value);
  }

  /** `whole` / 10^`decimals`, without trailing zeros. */
  #decimal(negative: boolean, whole: number, decimals: number): void {
    this.#makeRoom(NUMBER_BYTES);
    if (negative && whole > 0) this.#bytes[this.#end++] = MINUS;
    const power = POWERS[decimals]!;
    const units = Math.floor(whole / power);
    let rest = whole - units * power;
    let width = decimals;
    for (; width > 0 && rest % 10 === 0; width--) rest /= 10;
    this.#integer(units);
    if (width === 0) return;
    this.#bytes[this.#end++] = POINT;
    this.#digits(rest, width);
  }

  #integer(value: number): void {
    if (value >= BILLION) {
      const high = Math.floor(value / BILLION);
      this.#integer(high);
      this.#digits(value - high * BILLION, 9);
      return;
    }
    let width = 1;
    while (value >= POWERS[width]!) width++;
    this.#digits(value, width);
  }

  /** A number below a billion in exactly `width` digits. */
  #digits(value: number, width: number): void {
    let rest = value | 0;
    for (let i = this.#end + width - 1; i >= this.#end; i--) {
      const tenth = (rest / 10) | 0;
      this.#bytes[i] = ZERO + rest - 10 * tenth;
      rest = tenth;
    }
    this.#end += width;
  }

  #makeRoom(bytes: number): void {
    if (this.#end + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(2 * (this.#end + bytes));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}
