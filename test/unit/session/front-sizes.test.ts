/** Fronts that see the image at another resolution, or with another normalisation. */
import { join } from 'node:path';
import { Tensor } from 'lib/index.js';
import { removeFolders } from '../../helpers/files.js';
import { foreign, SIDE } from '../../helpers/foreign-network.js';
import { colours, itemsFrom, ladder, type Rung, run, sureness } from '../../helpers/ladders.js';
import { availableIsas } from '../../helpers/sessions.js';

afterAll(removeFolders);
const [NEVER, ALWAYS] = [2, 0];

/** Antialiased bilinear resampling of square planes in double precision, as PyTorch's `interpolate` defines it. */
function resized({ data, dims }: Tensor<'float32'>, side: readonly [number, number]): Tensor<'float32'> {
  const [count, channels, height, width] = dims as [number, number, number, number];
  const weightsOf = (from: number, to: number) =>
    Array.from({ length: to }, (_, i) => {
      const scale = from / to;
      const reach = Math.max(scale, 1);
      const centre = (i + 0.5) * scale;
      const weights = Array.from({ length: from }, (_, j) =>
        Math.max(0, 1 - Math.abs((j + 0.5 - centre) / reach)),
      );
      const sum = weights.reduce((a, b) => a + b, 0);
      return weights.map((weight) => weight / sum);
    });
  const [rows, columns] = [weightsOf(height, side[0]), weightsOf(width, side[1])];
  const out = new Float32Array(count * channels * side[0] * side[1]);
  for (let plane = 0; plane < count * channels; plane++) {
    for (const [y, down] of rows.entries()) {
      for (const [x, across] of columns.entries()) {
        let sum = 0;
        for (const [r, a] of down.entries())
          for (const [c, b] of across.entries()) sum += a * b * data[(plane * height + r) * width + c]!;
        out[(plane * side[0] + y) * side[1] + x] = sum;
      }
    }
  }
  return new Tensor('float32', out, [count, channels, ...side]);
}

describe('a front of another resolution', () => {
  const large = colours(6, 32);
  const model = foreign({ side: 32, channels: 16 });
  const same = (rows: readonly number[][], expected: readonly number[][]) => {
    expect(rows).toHaveLength(expected.length);
    for (const [i, row] of rows.entries())
      for (const [c, value] of row.entries()) expect(value).toBeCloseTo(expected[i]![c]!, 3);
  };

  test.each<[number, number]>([
    [16, 16],
    [24, 24],
    [20, 12],
    [40, 48],
    [1, 1],
  ])('of %d x %d pixels sees what resizing outside makes of the image', async (height, width) => {
    const size: [number, number] = [height, width];
    const rung = { name: 'front', size, threshold: ALWAYS };
    const { rows, trace } = await run(ladder(model, [rung]), large);
    const front = await run(foreign({ side: height, width, channels: 16 }), resized(large, size));
    same(rows, front.rows);
    for (const item of trace.items)
      expect(item.multiplyAddsSkipped).toBe(trace.multiplyAdds - front.multiplyAdds);
  });

  test('has the same bits in any batch and on any instruction set', async () => {
    const folder = ladder(model, [{ name: 'front', size: [20, 12], threshold: ALWAYS }]);
    const { rows } = await run(folder, large, { isa: 'scalar', threads: 1 });
    for (const isa of await availableIsas(join(folder, 'model.onnx'))) {
      const single = await run(folder, itemsFrom(large, 2, 3), { isa, threads: 2 });
      expect(single.rows).toEqual(rows.slice(2, 3));
      expect((await run(folder, large, { isa, threads: 2 })).rows).toEqual(rows);
    }
  });

  test('sees the image scaled and shifted by channel, or by one number for all', async () => {
    const bytes = foreign({ seed: 50, blocks: 2 });
    const changed = (scale: readonly number[], offset: readonly number[]) => {
      const at = (list: readonly number[], i: number) => list[Math.floor(i / 256) % list.length]!;
      const small = resized(large, [SIDE, SIDE]);
      const data = small.data.map((value, i) => value * at(scale, i) + at(offset, i));
      return new Tensor('float32', data, small.dims);
    };
    const rung = { name: 'front', bytes, size: [SIDE, SIDE] as [number, number], threshold: ALWAYS };
    for (const [scale, offset] of [
      [
        [0.5, 2, -1],
        [0.1, -0.3, 1],
      ],
      [[0.25], [0.5]],
    ] as const) {
      const spec = { ...rung, scale: [...scale], offset: [...offset] };
      const { rows } = await run(ladder(model, [spec]), large);
      same(rows, (await run(bytes, changed(scale, offset))).rows);
    }
  });

  test('may be the same network twice, at two sizes', async () => {
    const rungs: Rung[] = [
      { name: 'tiny', size: [8, 8], threshold: NEVER },
      { name: 'half', size: [16, 16], threshold: ALWAYS },
    ];
    const { rows, trace } = await run(ladder(model, rungs), large);
    const half = await run(foreign({ channels: 16 }), resized(large, [16, 16]));
    const tiny = await run(foreign({ side: 8, channels: 16 }), resized(large, [8, 8]));
    same(rows, half.rows);
    for (const [i, { exits }] of trace.items.entries())
      expect(exits[0]!.score).toBeCloseTo(sureness(tiny.rows)[i]!, 4);
  });
});
