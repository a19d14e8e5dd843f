/** Colour profiles (ICC.1) of which the colours are those of sRGB: pixels stay as they are. */

/** XYZ of red, green and blue under D50, and how far a profile's may be from them. */
const PRIMARIES = {
  rXYZ: [0.4361, 0.2225, 0.0139],
  gXYZ: [0.3851, 0.7169, 0.0971],
  bXYZ: [0.1431, 0.0606, 0.7141],
} as const;
const APART = 0.001;
/** Of a curve, the 8-bit values that are compared with those of sRGB, and how far they may be from them. */
const LEVELS = Array.from({ length: 52 }, (_, i) => 5 * i);
const LEVELS_APART = 0.5;
const CURVES = ['rTRC', 'gTRC', 'bTRC'];
/** Tables that count instead of primaries and curves. */
const TABLES = /^(A2B|D2B)/;

const HEADER_BYTES = 128;
const TAG_BYTES = 12;

/** Whether a profile has the primaries and the curves of sRGB. False for a damaged profile. */
export function isSrgb(profile: Buffer): boolean {
  const text = (at: number) => profile.toString('latin1', at, at + 4);
  // Beyond the end there is NaN, which is near to nothing.
  const short = (at: number) => (at + 2 <= profile.length ? profile.readUInt16BE(at) : Number.NaN);
  const long = (at: number) => (at + 4 <= profile.length ? profile.readUInt32BE(at) : Number.NaN);
  const fixed = (at: number) => (at + 4 <= profile.length ? profile.readInt32BE(at) / 65536 : Number.NaN);
  if (text(16) !== 'RGB ' || text(20) !== 'XYZ ' || text(36) !== 'acsp') return false;

  const tags = new Map<string, number>();
  const end = HEADER_BYTES + 4 + TAG_BYTES * long(HEADER_BYTES);
  for (let at = HEADER_BYTES + 4; at < end && at < profile.length; at += TAG_BYTES)
    tags.set(text(at), long(at + 4));
  if ([...tags.keys()].some((tag) => TABLES.test(tag))) return false;

  const isPrimary = ([tag, wanted]: [string, readonly number[]]) => {
    const at = tags.get(tag) ?? profile.length;
    return (
      text(at) === 'XYZ ' && wanted.every((value, i) => Math.abs(fixed(at + 8 + 4 * i) - value) <= APART)
    );
  };
  const curveAt = (at: number) => {
    if (text(at) === 'curv') {
      const last = long(at + 8) - 1;
      if (last < 1) return () => Number.NaN;
      return (x: number) => {
        const whole = Math.min(Math.floor(x * last), last - 1);
        const [low, high] = [short(at + 12 + 2 * whole), short(at + 14 + 2 * whole)];
        return (low + (high - low) * (x * last - whole)) / 65535;
      };
    }
    const kind = text(at) === 'para' ? short(at + 8) : Number.NaN;
    const [g, a, b, c, d] = [0, 1, 2, 3, 4].map((i) => (kind === 3 ? fixed(at + 12 + 4 * i) : Number.NaN));
    return (x: number) => (x >= d! ? (a! * x + b!) ** g! : c! * x);
  };
  const isCurve = (at: number | undefined) => {
    const curve = curveAt(at ?? profile.length);
    return LEVELS.every((level) => Math.abs(255 * encoded(curve(level / 255)) - level) <= LEVELS_APART);
  };
  const curves = new Set(CURVES.map((tag) => tags.get(tag)));
  return Object.entries(PRIMARIES).every(isPrimary) && [...curves].every(isCurve);
}

/** A linear value as in sRGB. */
function encoded(x: number): number {
  return x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055;
}
