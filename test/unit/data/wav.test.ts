import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { readArrays } from 'lib/data/arrays.js';
import { parseWav } from 'lib/data/wav.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { bytesOf } from '../../helpers/arrays.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { taskItems, taskNetwork } from '../../helpers/task-networks.js';
import { type Layout, wav } from '../../helpers/wav.js';

afterAll(removeFolders);

test.each<[string, Uint8Array, Layout, readonly number[]]>([
  ['bytes', Buffer.of(0, 128, 192), { bits: 8 }, [-1, 0, 0.5]],
  ['16 bits', bytesOf(Int16Array.of(-32768, 0, 16384)), {}, [-1, 0, 0.5]],
  ['24 bits', Buffer.of(0, 0, 0x80, 0, 0, 0, 0, 0, 0x40), { bits: 24 }, [-1, 0, 0.5]],
  ['32 bits', bytesOf(Int32Array.of(-(2 ** 31), 0, 2 ** 30)), { bits: 32 }, [-1, 0, 0.5]],
  ['floats', bytesOf(Float32Array.of(-1, 0.25)), { format: 3, bits: 32 }, [-1, 0.25]],
  ['doubles', bytesOf(Float64Array.of(-1, 0.25)), { format: 3, bits: 64 }, [-1, 0.25]],
  ['two channels', bytesOf(Int16Array.of(16384, 0, -16384, 16384)), { channels: 2 }, [0.25, 0]],
  ['an extensible header', bytesOf(Int16Array.of(-32768)), { extensible: true }, [-1]],
])('samples of %s', (_, data, layout, samples) => {
  const found = parseWav(wav(data, { rate: 16_000, ...layout }), 'test');
  expect(found.rate).toBe(16_000);
  expect([...found.samples]).toEqual(samples);
});

const whole = wav(bytesOf(Int16Array.of(1, 2, 3)));
test.each<[string, Buffer, RegExp]>([
  ['no WAV file', Buffer.from('ID3 and so on'), /it is no WAV file$/],
  ['an empty file', Buffer.alloc(0), /it is no WAV file$/],
  ['a truncated one', whole.subarray(0, -3), /it ends too early: 3 of 6 bytes/],
  ['one without samples', whole.subarray(0, 40), /it has no samples$/],
  ['another coding', wav(Buffer.of(1, 2), { format: 7, bits: 8 }), /of format 7 with 8 bits; expected PCM/],
  ['a header without channels', wav(Buffer.of(1, 2), { channels: 0 }), /its header contradicts itself$/],
])('%s is refused', (_, bytes, message) => {
  expect(() => parseWav(bytes, 'file a.wav')).toThrow(
    expect.objectContaining({ code: 'INVALID_DATA', message: expect.stringMatching(message) }),
  );
});

describe('files', () => {
  const port = (shape: readonly (number | string)[]) =>
    [{ name: 'samples', type: 'float32', shape }] as const;
  const slow = wav(bytesOf(Int16Array.of(16384, -16384)));
  const fast = wav(bytesOf(Int16Array.of(0, 0)), { rate: 16_000 });

  test('folders are classes, and the network says which axes there are', async () => {
    const folder = folderOf({ 'yes/b.wav': slow, 'yes/a.wav': slow, 'no/c.wav': slow });
    const items = await readArrays(folder, port(['n', 1, 'samples']), {});
    expect(items.map(({ name, label }) => [name, label])).toEqual([
      ['no/c.wav', 'no'],
      ['yes/a.wav', 'yes'],
      ['yes/b.wav', 'yes'],
    ]);
    expect(items[0]!.feeds.samples).toEqual(new Tensor('float32', Float32Array.of(0.5, -0.5), [1, 1, 2]));
  });

  test('are normalised where the network needs it', async () => {
    const folder = folderOf({ 'a.wav': wav(bytesOf(Int16Array.of(8192, 24576))) });
    const [item] = await readArrays(folder, port(['n', 2]), {}, { rate: 8000, normalizes: true });
    // Mean 1/2, variance 1/16.
    const expected = 0.25 / Math.sqrt(1 / 16 + 1e-7);
    const { data } = item!.feeds.samples as Tensor<'float32'>;
    for (const [i, sign] of [-1, 1].entries()) expect(data[i]).toBeCloseTo(sign * expected, 6);
  });

  test.each<[string, Record<string, Buffer>, readonly (number | string)[], number | undefined, RegExp]>([
    [
      'rates that differ',
      { 'a.wav': slow, 'b.wav': fast },
      ['n', 's'],
      undefined,
      /b\.wav: it has 16000 samples a second instead of 8000; resample it$/,
    ],
    [
      'a rate that the network is not for',
      { 'a.wav': slow },
      ['n', 's'],
      16_000,
      /it has 8000 samples a second instead of 16000/,
    ],
    [
      'another length',
      { 'a.wav': slow },
      ['n', 3],
      undefined,
      /it has 2 samples, but the network takes 3; cut or pad it$/,
    ],
    [
      'a network of spectrograms',
      { 'a.wav': slow },
      ['n', 40, 's'],
      undefined,
      /no samples of a sound \[n, samples\].*as \.npy files$/,
    ],
  ])('%s are refused', async (_, files, shape, rate, message) => {
    await expect(
      readArrays(folderOf(files), port(shape), {}, { rate, normalizes: false }),
    ).rejects.toMatchObject({ code: 'INVALID_DATA', message: expect.stringMatching(message) });
  });
});

test('a network of sounds is calibrated on WAV files as on the samples themselves, and runs them', async () => {
  const folder = folderOf({
    'net/model.onnx': taskNetwork('audio', 5),
    'net/preprocessor_config.json': JSON.stringify({ sampling_rate: 8000, do_normalize: false }),
  });
  const model = join(folder, 'net');
  const sounds = taskItems('audio', 400, 3).map(({ samples }) => samples!.data as Float32Array);
  mkdirSync(join(folder, 'sounds'));
  for (const [i, samples] of sounds.entries()) {
    const name = `${String(i).padStart(3, '0')}.wav`;
    writeFileSync(join(folder, 'sounds', name), wav(bytesOf(samples), { format: 3, bits: 32 }));
  }
  const options = { maxDisagreement: 0.1, threads: 1, onNote: () => {} };
  const promised = async (data: Parameters<typeof calibrate>[1]) => {
    const { policy } = await calibrate(model, data, options);
    // How tensors were prepared isn't known.
    const { data: of, settings: _, ...promise } = policy.promise!;
    return { promise, sha256: of.sha256, blocks: policy.blocks };
  };
  const tensors = sounds.map((samples) => ({
    samples: new Tensor('float32', samples, [1, 1, samples.length]),
  }));
  expect(await promised(join(folder, 'sounds'))).toEqual(await promised(tensors));

  const { code, out } = await cli('run', model, join(folder, 'sounds', '000.wav'), '--json');
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject([{ input: 'sounds/000.wav' }]);
}, 120_000);
