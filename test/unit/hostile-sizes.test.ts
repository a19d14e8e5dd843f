/** Model files of some hundred bytes that ask for more than there is. */
import { InferenceSession } from 'lib/session/session.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { GraphBuilder, modelBytes, tensor } from '../helpers/onnx-builder.js';

test('a convolution whose padding takes more memory than there is fails with its name and size', async () => {
  const channels = 2 ** 20;
  const graph = new GraphBuilder();
  const x = graph.input('x', [1, channels, 2, 2]);
  const weight = graph.constant(tensor(new Float32Array(4 * channels), [channels, 1, 2, 2]));
  const attributes = {
    group: channels,
    kernel_shape: [2, 2],
    strides: [2 ** 20, 2 ** 20],
    pads: [2 ** 20, 2 ** 20, 2 ** 20, 2 ** 20],
  };
  graph.output(graph.node('Conv', [x, weight], attributes), [1, channels, 3, 3]);
  await expect(InferenceSession.create(modelBytes(graph))).rejects.toMatchObject({
    name: 'ResidualSkipError',
    code: 'OUT_OF_MEMORY',
    message: expect.stringMatching(
      /more than 4 EB of them for 'Conv1_y'.* this process may use only \d+\.\d GB/,
    ),
  });
});

test('a network of which one item needs more than maxMemory is refused', async () => {
  const graph = new GraphBuilder();
  const weight = graph.constant(tensor(new Float32Array(16 * 16 * 9), [16, 16, 3, 3]));
  const attributes = { kernel_shape: [3, 3], pads: [1, 1, 1, 1] };
  const x = graph.node('Conv', [graph.input('x', ['n', 16, 64, 64]), weight], attributes);
  graph.output(graph.node('Conv', [x, weight], attributes), ['n', 16, 64, 64]);
  const bytes = modelBytes(graph);
  const map = 16 * 64 * 64 * 4;
  await expect(InferenceSession.create(bytes, { maxMemory: map })).rejects.toMatchObject({
    code: 'OUT_OF_MEMORY',
    message: expect.stringMatching(/^model: it needs \d+\.\d KB for one item, .* may use only 262\.1 KB/),
  });
  const session = await InferenceSession.create(bytes, { maxMemory: 10 * map });
  await session.run({ x: new Tensor('float32', new Float32Array((2 * map) / 4), [2, 16, 64, 64]) });
  await session.release();
});

test.each(['native', 'reference'] as const)(
  'a pool far larger than the image takes no longer than one of its size (%s)',
  async (backend) => {
    const kernel = 2 ** 20;
    const graph = new GraphBuilder();
    const attributes = {
      kernel_shape: [kernel, kernel],
      pads: [kernel / 2, kernel / 2, kernel / 2 - 1, kernel / 2 - 1],
    };
    graph.output(graph.node('MaxPool', [graph.input('x', [1, 1, 50, 50])], attributes), [1, 1, 50, 50]);
    const session = await InferenceSession.create(modelBytes(graph), { backend });
    const began = performance.now();
    const { MaxPool0_y: y } = await session.run({
      x: new Tensor(
        'float32',
        Float32Array.from({ length: 2500 }, (_, i) => i),
        [1, 1, 50, 50],
      ),
    });
    expect(performance.now() - began).toBeLessThan(1500);
    expect([...y!.data]).toEqual(new Array(2500).fill(2499));
    await session.release();
  },
);
