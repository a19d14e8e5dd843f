import { holdsBfloat16, nearestBfloat16 } from '../../../lib/numeric/bfloat16.js';
import type { Heads } from '../../../lib/skip/attach.js';
import { decodeHeads, type EncodedHeads, encodeHeads } from '../../../lib/skip/head-codec.js';

const headsWith = (weight: Float32Array): Heads => ({
  exits: [
    {
      after: 'block0',
      threshold: 0.5,
      head: { features: 'mean', layers: [{ weight, bias: Float32Array.of(0.1, 1e-30) }] },
    },
  ],
  gates: [],
});
const weightOf = ({ exits: [exit] }: Heads) => exit!.head!.layers[0]!.weight;
const layerOf = ({ exits: [exit] }: EncodedHeads) =>
  (exit as { layers: { dtype?: string; weight: string }[] }).layers[0]!;

describe('nearestBfloat16', () => {
  it('rounds to the nearest, ties to even, and keeps what is finite finite', () => {
    // 1 + k / 256 for odd k lies between two neighbours, which are 1 / 128 apart.
    const values = Float32Array.of(
      1,
      1 + 1 / 256,
      1 + 3 / 256,
      1 + 0.9 / 256,
      -1.1 / 256 - 1,
      3.4e38,
      -0,
      1e-40,
    );
    const rounded = nearestBfloat16(values);
    expect([...rounded.slice(0, 5)]).toEqual([1, 1, 1 + 4 / 256, 1, -1 - 2 / 256]);
    expect(rounded[5]).toBeGreaterThan(3.37e38);
    expect(rounded.every(Number.isFinite)).toBe(true);
    expect(Object.is(rounded[6], -0)).toBe(true);
    expect(holdsBfloat16(rounded)).toBe(true);
    expect(holdsBfloat16(values)).toBe(false);
  });
});

describe('heads in a policy file', () => {
  it('keep every bit of their weights, in two bytes each where these hold them', () => {
    const precise = Float32Array.of(0.1, -3e-20, 7, 1e30);
    const coarse = nearestBfloat16(precise);
    for (const [weight, dtype, bytes] of [
      [precise, undefined, 16],
      [coarse, 'bfloat16', 8],
    ] as const) {
      const encoded = JSON.parse(JSON.stringify(encodeHeads(headsWith(weight))));
      expect(layerOf(encoded).dtype).toBe(dtype);
      expect(Buffer.from(layerOf(encoded).weight, 'base64')).toHaveLength(bytes);
      expect(decodeHeads(encoded)).toEqual(headsWith(weight));
      expect([...weightOf(decodeHeads(encoded))]).toEqual([...weight]);
    }
  });

  it.each([
    ['an odd number of bytes', 'AAAA'],
    ['infinity', Buffer.from([0x80, 0x7f]).toString('base64')],
    ['nothing', ''],
  ])('are refused with %s', (_, weight) => {
    const encoded = encodeHeads(headsWith(Float32Array.of(1, 2)));
    Object.assign(layerOf(encoded), { weight });
    expect(() => decodeHeads(encoded)).toThrow(/block0.*finite bfloat16/);
  });
});
