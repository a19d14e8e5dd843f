/** Fronts that a session refuses, and what it says. */
import { join } from 'node:path';
import { InferenceSession } from 'lib/index.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, SIDE } from '../../helpers/foreign-network.js';
import { ladder, ladderPolicy, type Rung } from '../../helpers/ladders.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

afterAll(removeFolders);
const MODEL = foreign({ channels: 16 });
const SMALL = foreign({ seed: 50, blocks: 2 });
const MIDDLE = foreign({ seed: 90, blocks: 3 });
const ALWAYS = 0;

describe('what is refused', () => {
  const small = { name: 'small', bytes: SMALL, threshold: ALWAYS };
  const twoInputs = () => {
    const graph = new GraphBuilder();
    const sum = graph.node('Add', [
      graph.input('picture', ['n', 3, SIDE, SIDE]),
      graph.input('other', ['n', 3, SIDE, SIDE]),
    ]);
    graph.nodes('Flatten', [graph.node('GlobalAveragePool', [sum])], {}, { outputs: ['votes'] });
    return modelBytes(graph.output('votes', ['n', 3]));
  };
  /** Its window is larger than some images. */
  const windowed = () => {
    const graph = new GraphBuilder();
    const input = graph.input('picture', ['n', 3, 'height', 'width']);
    const pooled = graph.node('AveragePool', [input], { kernel_shape: [8, 8], strides: [8, 8] });
    const flat = graph.node('Flatten', [graph.node('GlobalAveragePool', [pooled])]);
    graph.nodes(
      'MatMul',
      [flat, graph.constant(tensor(randomFloats(15, 3), [3, 5]))],
      {},
      { outputs: ['votes'] },
    );
    return modelBytes(graph.output('votes', ['n', 5]));
  };
  /** Scores less their mean over the batch. */
  const mixing = () => {
    const graph = new GraphBuilder();
    const pooled = graph.node('Flatten', [
      graph.node('GlobalAveragePool', [graph.input('picture', ['n', 3, SIDE, SIDE])]),
    ]);
    const weights = graph.constant(tensor(randomFloats(15, 3), [3, 5]));
    const scores = graph.node('MatMul', [pooled, weights]);
    graph.nodes(
      'Sub',
      [scores, graph.node('ReduceMean', [scores], { axes: [0] })],
      {},
      { outputs: ['votes'] },
    );
    return modelBytes(graph.output('votes', ['n', 5]));
  };

  test.each<[string, Partial<Rung>, RegExp]>([
    [
      'other classes',
      { bytes: foreign({ classes: 4 }) },
      /has 4 classes, and the model has 5; map them by 'classes'/,
    ],
    [
      'too few classes mapped',
      { classes: [0, 1] },
      /has 5 classes, of which 'classes' names 2, and the model has 5/,
    ],
    ['a class that the model lacks', { classes: [0, 1, 2, 3, 5] }, /'classes'/],
    [
      'other channels',
      { bytes: foreign({ colours: 1 }) },
      /takes float32\[n,1,16,16\], and the model float32\[n,3,16,16\]; give a/,
    ],
    [
      'another size',
      { bytes: foreign({ side: 20 }) },
      /takes float32\[n,3,20,20\], and the model float32\[n,3,16,16\]/,
    ],
    [
      'a size too small for it',
      { bytes: windowed(), size: [4, 4] },
      /can't read the model's input .*; give another size/,
    ],
    [
      'a second input',
      { bytes: twoInputs() },
      /has an input 'other' that the model doesn't have; give a network/,
    ],
    [
      'items that depend on each other',
      { bytes: mixing() },
      /mixes the items of a batch.*give a plain network/,
    ],
    ['no class scores', { bytes: foreign({ classes: 1 }) }, /no output with class scores; give a network/],
    [
      'the name of a block',
      { name: 'block1' },
      /'block1' has the name of a block, or of an exit of the model; give it another/,
    ],
    ['the wrong number of factors', { scale: [1, 2] }, /has 2 numbers in 'scale', and the model's input 3/],
  ])('a front with %s', async (_, more, message) => {
    const folder = ladder(MODEL, [{ ...small, ...more }]);
    const error = await InferenceSession.create(folder).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: 'INVALID_POLICY', message: expect.stringMatching(message) });
    expect(error.message).toContain(`'${more.name ?? 'small'}'`);
    expect(error.message).toContain(join(folder, 'policy.json'));
  });

  test.each<[string, object, RegExp]>([
    ['a path', { file: '../small.onnx' }, /fronts\.0\.file: expected the name of a file in the folder/],
    ['no digest', { sha256: 'ABC' }, /fronts\.0\.sha256: expected 64 hexadecimal digits/],
    ['no size', { size: [0, 16] }, /fronts\.0\.size\.0: .*at least 1/],
    ['an offset that is no number', { offset: ['1'] }, /fronts\.0\.offset\.0: expected a number/],
    ['a misspelt key', { class: [1] }, /unknown key 'class'/],
    ['no class of the model', { classes: [null, null] }, /fronts\.0\.classes: expected the model's classes/],
    [
      'a class twice',
      { classes: [0, 1, 1, null, null] },
      /fronts\.0\.classes: expected the model's classes, each at most once/,
    ],
  ])('a policy whose front has %s', async (_, spec, message) => {
    const policy = ladderPolicy(MODEL, [small]);
    const fronts = [{ ...policy.fronts![0], ...spec }] as never;
    await expect(InferenceSession.create(MODEL, { policy: { ...policy, fronts } })).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringMatching(message),
    });
  });

  test('two fronts of one name, or none', async () => {
    const policy = ladderPolicy(MODEL, [small]);
    const creating = (fronts: unknown) =>
      InferenceSession.create(MODEL, { policy: { ...policy, fronts } as never });
    await expect(creating([policy.fronts![0], policy.fronts![0]])).rejects.toThrow(
      /fronts of different names/,
    );
    await expect(creating([])).rejects.toMatchObject({ code: 'INVALID_POLICY' });
  });

  test('a model of bytes, whose folder is unknown', async () => {
    const policy = ladderPolicy(MODEL, [small]);
    await expect(InferenceSession.create(MODEL, { policy })).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringMatching(
        /'small' is the file small\.onnx beside the model, .*bytes; give its path/,
      ),
    });
  });

  test('a missing file, and one that changed', async () => {
    const policy = JSON.stringify(ladderPolicy(MODEL, [small]));
    const missing = folderOf({ 'model.onnx': MODEL, 'policy.json': policy });
    await expect(InferenceSession.create(missing)).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
      message: expect.stringMatching(
        /'small' can't be loaded .*small\.onnx: it doesn't exist.*; restore that file/,
      ),
    });
    const changed = folderOf({ 'model.onnx': MODEL, 'small.onnx': MIDDLE, 'policy.json': policy });
    await expect(InferenceSession.create(changed)).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(/'small'.*restore that file, or make the policy again/),
    });
    await using session = await InferenceSession.create(missing, { policy: 'full' });
    expect(session.outputNames).toEqual(['votes']);
  });

  test('an exit of a front that is not there', async () => {
    const heads = { exits: [{ after: 'large', threshold: 0.5 }] };
    await expect(InferenceSession.create(ladder(MODEL, [small], { heads }))).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringMatching(/its exit 'large' has no head/),
    });
  });
});
