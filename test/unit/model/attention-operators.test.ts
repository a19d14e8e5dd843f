/** Attention as one operator, by its formula in double precision; ONNX's tests have no case of it here. */
import type { Tensor as AnyTensor } from 'lib/index.js';
import { Tensor } from 'lib/index.js';
import { float } from '../../helpers/onnx-builder.js';
import { randomTensor, runNode } from '../../helpers/onnx-run.js';

const [BATCH, HEADS, QUERIES, KEYS, SIZE] = [2, 2, 3, 5, 4];
const WIDTH = HEADS * SIZE;
/** (batch, tokens, heads * size) */
const flat = (tokens: number, seed: number, heads = HEADS) =>
  randomTensor([BATCH, tokens, heads * SIZE], seed);

type Row = (batch: number, head: number, token: number) => number[];
/** Reads heads out of (batch, tokens, heads * size). */
function inHeads({ data, dims }: AnyTensor, heads = HEADS): Row {
  const [, tokens, width] = dims as [number, number, number];
  const size = width / heads;
  return (b, h, t) =>
    Array.from(data as Float32Array).slice(
      (b * tokens + t) * width + h * size,
      (b * tokens + t) * width + (h + 1) * size,
    );
}

interface Form {
  readonly queries?: number;
  readonly keys?: number;
  readonly scale?: number;
  /** Added to a score; -Infinity hides the key. */
  readonly mask?: (batch: number, query: number, key: number, head: number) => number;
  readonly cap?: (score: number) => number;
}

/** (batch, queries, heads * size) */
function expected(q: Row, k: Row, v: Row, form: Form = {}): number[] {
  const {
    queries = QUERIES,
    keys = KEYS,
    scale = 1 / Math.sqrt(SIZE),
    mask = () => 0,
    cap = (x) => x,
  } = form;
  const y: number[] = [];
  for (let b = 0; b < BATCH; b++)
    for (let i = 0; i < queries; i++)
      for (let h = 0; h < HEADS; h++) {
        const scores = Array.from({ length: keys }, (_, j) => {
          const dot = q(b, h, i).reduce((sum, x, d) => sum + x * k(b, h, j)[d]!, 0);
          return cap(dot * scale) + mask(b, i, j, h);
        });
        const most = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - most));
        const total = weights.reduce((a, c) => a + c);
        for (let d = 0; d < v(b, h, 0).length; d++)
          y.push(weights.reduce((sum, w, j) => sum + (w / total) * v(b, h, j)[d]!, 0));
      }
  return y;
}

function expectClose(actual: readonly number[] | undefined, wanted: readonly number[]): void {
  expect(actual).toHaveLength(wanted.length);
  for (const [i, value] of wanted.entries()) expect(Math.abs(actual![i]! - value)).toBeLessThan(1e-5);
}

const [q, k, v] = [flat(QUERIES, 1), flat(KEYS, 2), flat(KEYS, 3)];
const rows = [inHeads(q), inHeads(k), inHeads(v)] as const;
const heads = { q_num_heads: HEADS, kv_num_heads: HEADS };

describe('Attention', () => {
  test('splits heads, scales and joins them again', async () => {
    const [y] = await runNode('Attention', [q, k, v], heads);
    expect(y!.dims).toEqual([BATCH, QUERIES, WIDTH]);
    expectClose(y!.data, expected(...rows));
    const [scaled] = await runNode('Attention', [q, k, v], { ...heads, scale: float(0.3) });
    expectClose(scaled!.data, expected(...rows, { scale: 0.3 }));
  });

  test('takes operands in heads, and returns keys, values and scores', async () => {
    const split = (tokens: number, seed: number) => randomTensor([BATCH, HEADS, tokens, SIZE], seed);
    const [a, b, c] = [split(QUERIES, 4), split(KEYS, 5), split(KEYS, 6)];
    const row =
      ({ data, dims }: AnyTensor): Row =>
      (i, h, t) =>
        Array.from(data as Float32Array)
          .slice(((i * HEADS + h) * dims[2]! + t) * SIZE)
          .slice(0, SIZE);
    const outputs = ['y', 'k', 'v', 'weights'];
    const [y, keys, values, weights] = await runNode(
      'Attention',
      [a, b, c],
      { qk_matmul_output_mode: 3 },
      outputs,
    );
    const joined = expected(row(a), row(b), row(c));
    const at = (i: number, h: number, t: number, d: number) => ((i * QUERIES + t) * HEADS + h) * SIZE + d;
    const moved = y!.data.map((_, n) => {
      const d = n % SIZE;
      const t = Math.floor(n / SIZE) % QUERIES;
      const h = Math.floor(n / SIZE / QUERIES) % HEADS;
      return joined[at(Math.floor(n / SIZE / QUERIES / HEADS), h, t, d)]!;
    });
    expectClose(y!.data, moved);
    expect(keys!.data).toEqual(Array.from(b.data as Float32Array));
    expect(values!.dims).toEqual(c.dims);
    expect(weights!.dims).toEqual([BATCH, HEADS, QUERIES, KEYS]);
    expect(weights!.data.slice(0, KEYS).reduce((sum, w) => sum + w)).toBeCloseTo(1, 5);
  });

  test('groups of heads share keys and values', async () => {
    const [one, other] = [flat(KEYS, 7, 1), flat(KEYS, 8, 1)];
    const [y] = await runNode('Attention', [q, one, other], { q_num_heads: HEADS, kv_num_heads: 1 });
    const shared =
      (tensor: AnyTensor): Row =>
      (b, _, t) =>
        inHeads(tensor, 1)(b, 0, t);
    expectClose(y!.data, expected(rows[0], shared(one), shared(other)));
  });

  test('a causal mask hides later keys, with earlier ones in a cache before them', async () => {
    const mask: Form['mask'] = (_, i, j) => (j > i ? Number.NEGATIVE_INFINITY : 0);
    const [y] = await runNode('Attention', [q, k, v], { ...heads, is_causal: 1 });
    expectClose(y!.data, expected(...rows, { mask }));
    const past = [9, 10].map((seed) => randomTensor([BATCH, HEADS, 2, SIZE], seed));
    const own = [flat(QUERIES, 11), flat(QUERIES, 12)];
    const operands = [q, own[0], own[1], undefined, past[0], past[1]];
    const [z, keys] = await runNode('Attention', operands, { ...heads, is_causal: 1 }, ['y', 'k']);
    const joined = [0, 1].map(
      (n): Row =>
        (b, h, t) => {
          const before = Array.from(past[n]!.data as Float32Array);
          return t < 2
            ? before.slice(((b * HEADS + h) * 2 + t) * SIZE).slice(0, SIZE)
            : inHeads(own[n]!)(b, h, t - 2);
        },
    );
    const shifted: Form['mask'] = (_, i, j) => (j > i + 2 ? Number.NEGATIVE_INFINITY : 0);
    expectClose(z!.data, expected(rows[0], joined[0]!, joined[1]!, { keys: 5, mask: shifted }));
    expect(keys!.dims).toEqual([BATCH, HEADS, 5, SIZE]);
  });

  test('masks of numbers are added, masks of bools choose; shorter ones hide the rest', async () => {
    const added = randomTensor([BATCH, 1, QUERIES, KEYS], 13);
    const number = (b: number, i: number, j: number) =>
      (added.data as Float32Array)[(b * QUERIES + i) * KEYS + j]!;
    const [y] = await runNode('Attention', [q, k, v, added], heads);
    expectClose(y!.data, expected(...rows, { mask: number }));
    const seen = new Tensor('bool', Uint8Array.from([1, 1, 0, 0, 1, 1, 1, 1, 1]), [QUERIES, 3]);
    const [z] = await runNode('Attention', [q, k, v, seen], heads);
    const chosen: Form['mask'] = (_, i, j) => (j < 3 && seen.data[i * 3 + j] ? 0 : Number.NEGATIVE_INFINITY);
    expectClose(z!.data, expected(...rows, { mask: chosen }));
  });

  test('softcap bends scores before the mask', async () => {
    const [y] = await runNode('Attention', [q, k, v], { ...heads, softcap: float(0.5), is_causal: 1 });
    const mask: Form['mask'] = (_, i, j) => (j > i ? Number.NEGATIVE_INFINITY : 0);
    expectClose(y!.data, expected(...rows, { mask, cap: (x) => 0.5 * Math.tanh(x / 0.5) }));
  });
});

describe('com.microsoft.MultiHeadAttention', () => {
  const op = 'com.microsoft.MultiHeadAttention';
  const plus = (tensor: AnyTensor, bias: AnyTensor, first: number) =>
    new Tensor(
      (tensor.data as Float32Array).map((x, i) => x + (bias.data as Float32Array)[first + (i % WIDTH)]!),
      tensor.dims,
    );

  test('adds its bias to all operands', async () => {
    const bias = randomTensor([3 * WIDTH], 14);
    const [y] = await runNode(op, [q, k, v, bias], { num_heads: HEADS });
    const biased = [q, k, v].map((tensor, i) => inHeads(plus(tensor, bias, i * WIDTH)));
    expectClose(y!.data, expected(biased[0]!, biased[1]!, biased[2]!));
  });

  test.each([
    ['lengths', new Tensor('int32', [2, 5], [BATCH]), (b: number, _: number, j: number) => j < [2, 5][b]!],
    [
      'keys that count',
      new Tensor('int32', [1, 0, 1, 1, 0, 0, 1, 1, 1, 1], [BATCH, KEYS]),
      (b: number, _: number, j: number) => [1, 0, 1, 1, 0, 0, 1, 1, 1, 1][b * KEYS + j] === 1,
    ],
  ])('masks keys by %s, and adds a bias of scores', async (_name, mask, seen) => {
    const bias = randomTensor([1, HEADS, QUERIES, KEYS], 15);
    const attributes = { num_heads: HEADS, mask_filter_value: float(-1e4) };
    const [y] = await runNode(op, [q, k, v, undefined, mask, bias], attributes);
    const added = (h: number, i: number, j: number) =>
      (bias.data as Float32Array)[(h * QUERIES + i) * KEYS + j]!;
    const form: Form = { mask: (b, i, j, h) => (seen(b, i, j) ? 0 : -1e4) + added(h, i, j) };
    expectClose(y!.data, expected(...rows, form));
  });

  test('unpacks keys and values, or all three', async () => {
    const interleave = (...tensors: AnyTensor[]) => {
      const [batch, tokens] = tensors[0]!.dims as [number, number];
      const data: number[] = [];
      for (let b = 0; b < batch; b++)
        for (let t = 0; t < tokens; t++)
          for (let h = 0; h < HEADS; h++)
            for (const tensor of tensors) data.push(...inHeads(tensor)(b, h, t));
      return new Tensor('float32', data, [batch, tokens, HEADS, tensors.length, SIZE]);
    };
    const [y] = await runNode(op, [q, interleave(k, v)], { num_heads: HEADS });
    expectClose(y!.data, expected(...rows));
    const [z] = await runNode(op, [interleave(k, v, k)], { num_heads: HEADS, unidirectional: 1 });
    const mask: Form['mask'] = (_, i, j) => (j > i ? Number.NEGATIVE_INFINITY : 0);
    expectClose(z!.data, expected(rows[1], rows[2], rows[1], { queries: KEYS, mask }));
  });

  test('a cache is refused by name', async () => {
    const past = randomTensor([BATCH, HEADS, 2, SIZE], 16);
    const operands = [q, k, v, undefined, undefined, undefined, past, past];
    await expect(runNode(op, operands, { num_heads: HEADS })).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringContaining('MultiHeadAttention with a cache'),
    });
  });
});

describe('com.microsoft.GroupQueryAttention', () => {
  const op = 'com.microsoft.GroupQueryAttention';
  const [keys, values] = [flat(QUERIES, 20, 1), flat(QUERIES, 21, 1)];
  const shared = (tensor: AnyTensor): Row => {
    const row = inHeads(tensor, 1);
    return (b, _, t) => row(b, 0, t);
  };
  const form: Form = { keys: QUERIES, mask: (_, i, j) => (j > i ? Number.NEGATIVE_INFINITY : 0) };
  const attributes = { num_heads: HEADS, kv_num_heads: 1 };
  const lengths = [
    new Tensor('int32', [QUERIES - 1, QUERIES - 1], [BATCH]),
    new Tensor('int32', [QUERIES], [1]),
  ];

  test('heads of queries share those of keys; no token sees later ones', async () => {
    const operands = [q, keys, values, undefined, undefined, ...lengths];
    const [y, presentKeys] = await runNode(op, operands, attributes, ['y', 'k', 'v']);
    expectClose(y!.data, expected(inHeads(q), shared(keys), shared(values), form));
    expect(presentKeys!.dims).toEqual([BATCH, 1, QUERIES, SIZE]);
    expectClose(presentKeys!.data, Array.from(keys.data as Float32Array));
  });

  test.each([0, 1])('unpacks all three and turns queries and keys (interleaved: %i)', async (interleaved) => {
    const angle = (t: number, pair: number) => t / 10 ** pair;
    const cache = (of: (x: number) => number) =>
      new Tensor(
        'float32',
        Array.from({ length: 8 * 2 }, (_, n) => of(angle(Math.floor(n / 2), n % 2))),
        [8, 2],
      );
    const turn =
      (row: Row): Row =>
      (b, h, t) => {
        const x = row(b, h, t);
        return x.map((a, d) => {
          const [pair, second] = interleaved ? [d >> 1, d % 2] : [d % 2, d >> 1];
          const other = x[interleaved ? d ^ 1 : (d + 2) % 4]!;
          const [cos, sin] = [Math.cos(angle(t, pair)), Math.sin(angle(t, pair))];
          return second ? a * cos + other * sin : a * cos - other * sin;
        });
      };
    const packed: number[] = [];
    for (let b = 0; b < BATCH; b++)
      for (let t = 0; t < QUERIES; t++)
        for (const tensor of [q, keys, values]) packed.push(...inHeads(tensor, 1)(b, 0, t));
    const x = new Tensor('float32', packed, [BATCH, QUERIES, WIDTH + 2 * SIZE]);
    const none = undefined;
    const operands = [x, none, none, none, none, ...lengths, cache(Math.cos), cache(Math.sin)];
    const all = { ...attributes, do_rotary: 1, rotary_interleaved: interleaved, scale: float(0.3) };
    const [y] = await runNode(op, operands, all);
    expectClose(
      y!.data,
      expected(turn(inHeads(q)), turn(shared(keys)), shared(values), { ...form, scale: 0.3 }),
    );
  });

  test('a cache is refused by name', async () => {
    const past = randomTensor([BATCH, 1, 2, SIZE], 22);
    const operands = [q, keys, values, past, past, ...lengths];
    await expect(runNode(op, operands, attributes)).rejects.toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringContaining('GroupQueryAttention with a cache'),
    });
  });
});

describe('com.microsoft.Attention', () => {
  const op = 'com.microsoft.Attention';
  const x = randomTensor([BATCH, KEYS, 6], 17);
  const weights = randomTensor([6, 3 * WIDTH], 18);
  const bias = randomTensor([3 * WIDTH], 19);
  const projected = (part: number): Row => {
    const data = Array.from({ length: BATCH * KEYS * WIDTH }, (_, n) => {
      const [row, column] = [Math.floor(n / WIDTH), part * WIDTH + (n % WIDTH)];
      const products = Array.from(
        { length: 6 },
        (_unused, i) =>
          (x.data as Float32Array)[row * 6 + i]! * (weights.data as Float32Array)[i * 3 * WIDTH + column]!,
      );
      return products.reduce((a, c) => a + c, (bias.data as Float32Array)[column]!);
    });
    return inHeads(new Tensor('float32', data, [BATCH, KEYS, WIDTH]));
  };
  const all = [projected(0), projected(1), projected(2)] as const;

  test('projects first; a triangle hides later keys', async () => {
    const [y] = await runNode(op, [x, weights, bias], { num_heads: HEADS, unidirectional: 1 });
    const mask: Form['mask'] = (_, i, j) => (j > i ? Number.NEGATIVE_INFINITY : 0);
    expectClose(y!.data, expected(...all, { queries: KEYS, mask }));
  });

  test.each([
    ['ends and beginnings', new Tensor('int32', [4, 5, 1, 0], [2 * BATCH])],
    [
      'pairs',
      new Tensor(
        'int32',
        Array.from({ length: BATCH * KEYS * KEYS }, (_, n) => {
          const j = n % KEYS;
          return n < KEYS * KEYS ? Number(j >= 1 && j < 4) : 1;
        }),
        [BATCH, KEYS, KEYS],
      ),
    ],
  ])('masks keys by %s', async (_name, mask) => {
    const [y] = await runNode(op, [x, weights, bias, mask], { num_heads: HEADS });
    const hidden: Form['mask'] = (b, _, j) => (b === 0 && (j < 1 || j >= 4) ? Number.NEGATIVE_INFINITY : 0);
    expectClose(y!.data, expected(...all, { queries: KEYS, mask: hidden }));
  });
});
