import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { InferenceSession } from 'lib/session/session.js';
import { recalled, sourceOf, WeightFile } from 'lib/tensor/recall.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const CHANNELS = 64;
const weights = randomFloats(CHANNELS * CHANNELS * 9, 1);

/**
 * A convolution of maps of any size: whether it is packed for Winograd's algorithm, and for which form, depends on the size. The file has so
 * many floats besides.
 */
function openConvolution(unused = 0): Uint8Array {
  const graph = new GraphBuilder();
  if (unused > 0) graph.constant(tensor(new Float32Array(unused), [unused]));
  const x = graph.input('x', ['batch', CHANNELS, 'height', 'width']);
  const weight = graph.constant(tensor(weights, [CHANNELS, CHANNELS, 3, 3]));
  const y = graph.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  return modelBytes(graph.output(y, ['batch', CHANNELS, 'height', 'width']));
}

const fileOf = (bytes: Uint8Array) => join(folderOf({ 'model.onnx': bytes }), 'model.onnx');
const feedsOf = (side: number) => {
  const dims = [1, CHANNELS, side, side];
  return { x: new Tensor('float32', randomFloats(CHANNELS * side * side, side), dims) };
};

/** A file's weights, packed once and given back. */
async function givenBack(file: string): Promise<Float32Array> {
  const model = await loadModel(file);
  const program = compileModel(model, new Map([['x', { shape: [1, CHANNELS, 14, 14] }]]));
  const backend = new NativeBackend({ threads: 1 });
  try {
    backend.compileSync(program);
    backend.forgetConstants(program);
  } finally {
    backend.release();
  }
  const [constant] = model.graph.constants.values();
  return constant!.data as Float32Array;
}

afterAll(removeFolders);

// Other systems keep the memory.
const onLinux = process.platform === 'linux' ? describe : describe.skip;
onLinux('weights of a file that were packed', () => {
  it('take no memory, and are read again where a rule asks for them', async () => {
    const data = await givenBack(fileOf(openConvolution()));
    expect(sourceOf(data)).toBeDefined();
    expect(data.filter((element) => element !== 0).length).toBeLessThan(weights.length / 10);
    expect(recalled(data)).toEqual(weights);
    expect(sourceOf(data)).toBeUndefined();
  });

  it('are those of the file that was loaded if another takes its place, and an error if it changes', async () => {
    const file = fileOf(openConvolution());
    const data = await givenBack(file);
    writeFileSync(`${file}.new`, 'another');
    renameSync(`${file}.new`, file);
    expect(recalled(data)).toEqual(weights);

    const changing = fileOf(openConvolution());
    const lost = await givenBack(changing);
    appendFileSync(changing, 'more');
    expect(() => recalled(lost)).toThrow(
      expect.objectContaining({ code: 'READ_FAILED', message: expect.stringContaining('changed after') }),
    );
  });
});

describe('the hash of a file', () => {
  const sha256 = createHash('sha256').update(openConvolution()).digest('hex');

  it('is of what was loaded if another file takes its place, and an error if it changes', async () => {
    const [replaced, changed] = [0, 1].map(() => fileOf(openConvolution())) as [string, string];
    const [first, second] = await Promise.all(
      [replaced, changed].map((file) => InferenceSession.create(file)),
    );
    writeFileSync(`${replaced}.new`, 'another');
    renameSync(`${replaced}.new`, replaced);
    expect(first!.model.sha256).toBe(sha256);
    appendFileSync(changed, 'more');
    expect(() => second!.model.sha256).toThrow(expect.objectContaining({ code: 'READ_FAILED' }));
    expect(second!.model.opset).toBeGreaterThan(0);
    await Promise.all([first, second].map((session) => session!.release()));
  });

  it('is computed in turns with the event loop for whoever awaits it, once', async () => {
    const bytes = openConvolution(10 << 20);
    const session = await InferenceSession.create(fileOf(bytes));
    let turns = 0;
    let waiting = true;
    const turn = () => {
      turns++;
      if (waiting) setImmediate(turn);
    };
    setImmediate(turn);
    const both = await Promise.all([session.sha256(), session.sha256()]);
    waiting = false;
    expect(turns).toBeGreaterThan(2);
    const expected = createHash('sha256').update(bytes).digest('hex');
    expect([...both, session.model.sha256]).toEqual([expected, expected, expected]);
    await session.release();
  });

  it('is not computed where nobody asks for it, and awaited by a run whose policy names the model', async () => {
    const hashing = jest.spyOn(WeightFile.prototype, 'addTo');
    const file = fileOf(openConvolution());
    const session = await InferenceSession.create(file, { freeDimensionOverrides: { height: 8, width: 8 } });
    const { classScores } = session.context;
    expect(classScores).toBeNull();
    expect(hashing).not.toHaveBeenCalled();
    const feeds = feedsOf(8);
    const policy = { default: 'run' as const, model: { sha256 } };
    await session.run(feeds, { policy });
    expect(hashing).toHaveBeenCalledTimes(1);
    const other = { ...policy, model: { sha256: 'f'.repeat(64) } };
    await expect(session.run(feeds, { policy: other })).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
    expect(hashing).toHaveBeenCalledTimes(1);
    await session.release();
  });

  it('is taken while the file is read where a policy names the model, or an observer is told of it', async () => {
    const policy = { default: 'run' as const, model: { sha256 } };
    const observer = { onRun() {} };
    for (const options of [{ policy }, { observers: [observer] }]) {
      const file = fileOf(openConvolution());
      const session = await InferenceSession.create(file, options);
      appendFileSync(file, 'more');
      expect(session.model.sha256).toBe(sha256);
      await session.release();
    }
    const other = {
      ...policy,
      model: { sha256: sha256.replace(/^./, (digit) => (digit === '0' ? '1' : '0')) },
    };
    const created = InferenceSession.create(fileOf(openConvolution()), { policy: other });
    await expect(created).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
  });
});

it('a session from a file answers as one from its bytes, whatever sizes follow each other', async () => {
  const bytes = openConvolution();
  const sessions = [fileOf(bytes), bytes].map((source) => InferenceSession.create(source, { threads: 1 }));
  for (const [i, side] of [7, 28, 3, 56, 7, 14].entries()) {
    const answers = [];
    for (const session of await Promise.all(sessions)) {
      const { ...outputs } = i % 2 ? session.runSync(feedsOf(side)) : await session.run(feedsOf(side));
      answers.push(Object.values(outputs)[0]!.data);
    }
    expect(answers[0]).toEqual(answers[1]);
    expect((answers[0] as Float32Array).some((element) => element !== 0)).toBe(true);
  }
  for (const session of sessions) await (await session).release();
});

it('programs that are compiled at the same time keep what they share until all are', async () => {
  const bytes = openConvolution();
  const [file, whole] = await Promise.all(
    [fileOf(bytes), bytes].map((source) => InferenceSession.create(source, { threads: 2 })),
  );
  const sides = [7, 28, 14, 56, 9];
  const together = await Promise.all(sides.map((side) => file!.run(feedsOf(side))));
  for (const [i, side] of sides.entries()) {
    const expected = Object.values(await whole!.run(feedsOf(side)))[0]!.data;
    expect(Object.values(together[i]!)[0]!.data).toEqual(expected);
  }
  await Promise.all([file, whole].map((session) => session!.release()));
});

it.each(['native', 'reference'] as const)(
  'the exits of a file have their large weights: %s',
  async (backend) => {
    const path = 'models/cifar10-resnet14-exits/model.onnx';
    // None of the exits before takes this one.
    const waves = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(2 + i * 0.1));
    const input = new Tensor('float32', waves, [1, 3, 32, 32]);
    const answers = await Promise.all(
      [path, readFileSync(path)].map(async (source) => {
        await using session = await InferenceSession.create(source, { backend, threads: 1 });
        const { outputs, trace } = await session.runTraced({ input });
        return [outputs.logits!.data, trace.items[0]!.exits.map(({ score }) => score)];
      }),
    );
    expect(answers[0]).toEqual(answers[1]);
  },
);
