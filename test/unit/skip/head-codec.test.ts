import { holdsBfloat16 } from 'lib/numeric/bfloat16.js';
import type { ExitSpec } from 'lib/skip/exits.js';
import { decodeExits, type EncodedHeads, encodeExits, headsSchema } from 'lib/skip/head-codec.js';

const headsWith = (weight: Float32Array): ExitSpec[] => [
  {
    after: 'block0',
    threshold: 0.5,
    head: { features: 'mean', layers: [{ weight, bias: Float32Array.of(0.1, 1e-30) }] },
  },
];
const weightOf = ([exit]: readonly ExitSpec[]) => exit!.head!.layers[0]!.weight;
const layerOf = ({ exits: [exit] }: EncodedHeads) =>
  (exit as { layers: { dtype?: string; weight: string }[] }).layers[0]!;

describe('heads in a policy file', () => {
  it('keep every bit of their weights, in two bytes each where these hold them', () => {
    const precise = Float32Array.of(0.1, -3e-20, 7, 1e30);
    const coarse = Float32Array.of(0.1015625, -3 * 2 ** -65, 7, 2 ** 99);
    expect([precise, coarse].map(holdsBfloat16)).toEqual([false, true]);
    for (const [weight, dtype, bytes] of [
      [precise, undefined, 16],
      [coarse, 'bfloat16', 8],
    ] as const) {
      const encoded = JSON.parse(JSON.stringify(encodeExits(headsWith(weight))));
      expect(layerOf(encoded).dtype).toBe(dtype);
      expect(Buffer.from(layerOf(encoded).weight, 'base64')).toHaveLength(bytes);
      expect(decodeExits(encoded)).toEqual(headsWith(weight));
      expect([...weightOf(decodeExits(encoded))]).toEqual([...weight]);
    }
  });

  it.each([
    ['an odd number of bytes', 'AAAA'],
    ['infinity', Buffer.from([0x80, 0x7f]).toString('base64')],
    ['nothing', ''],
  ])('are refused with %s', (_, weight) => {
    const encoded = encodeExits(headsWith(Float32Array.of(1, 2)));
    Object.assign(layerOf(encoded), { weight });
    expect(() => decodeExits(encoded)).toThrow(/block0.*finite bfloat16/);
  });

  describe('of bytes', () => {
    const rounding = {
      scale: Float32Array.of(3, 0),
      shift: Float32Array.of(-0.1, 0),
      factor: Float32Array.of(1e-3, 2 ** -100),
    };
    const [{ head, ...place }] = headsWith(Float32Array.of(127, -127, 0, 5)) as [ExitSpec];
    const heads = [{ ...place, head: { ...head!, layers: [{ ...head!.layers[0]!, rounding }] } }];

    it('keep a byte for each weight', () => {
      const encoded = JSON.parse(JSON.stringify(encodeExits(heads)));
      expect(layerOf(encoded).dtype).toBe('int8');
      expect(Buffer.from(layerOf(encoded).weight, 'base64')).toHaveLength(4);
      expect(headsSchema().parse(encoded)).toEqual(encoded);
      expect(decodeExits(encoded)).toEqual(heads);
    });

    const base64 = (numbers: Int8Array | Float32Array) =>
      Buffer.from(numbers.buffer as ArrayBuffer).toString('base64');
    it.each([
      ['a weight of -128', { weight: base64(Int8Array.of(-128, 0, 0, 0)) }],
      ['no weights', { weight: '' }],
      ['a factor of 0', { factor: base64(Float32Array.of(1, 0)) }],
      ['a scale that is no number', { scale: base64(Float32Array.of(Number.NaN, 1)) }],
    ])('are refused with %s', (_, wrong) => {
      const encoded = encodeExits(heads);
      Object.assign(layerOf(encoded), wrong);
      expect(() => decodeExits(encoded)).toThrow(/block0.*finite (int8|float32)/);
    });
  });
});
