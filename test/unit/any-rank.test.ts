import { Tensor } from 'lib/index.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';
import { withSession } from '../helpers/sessions.js';

/** TopK of an input of any rank, with k as an input. */
function bestOf(): Uint8Array {
  const graph = new GraphBuilder();
  const inputs = [graph.input('x'), graph.input('k', [1], 'int64')];
  graph.nodes('TopK', inputs, {}, { outputs: ['values', 'indices'] });
  return modelBytes(graph.output('values').output('indices', undefined, 'int64'));
}

describe.each(['native', 'reference'] as const)('an input without a declared shape on %s', (backend) => {
  it('takes tensors of any rank', async () => {
    await withSession(bestOf(), { backend }, async (session) => {
      const k = new Tensor('int64', [2n], [1]);
      const x = new Tensor('float32', [1, 5, 3, 4, 4, 0], [2, 3]);
      const { values, indices } = await session.run({ x, k });
      expect(values).toMatchObject({ dims: [2, 2], data: Float32Array.of(5, 3, 4, 4) });
      expect(indices).toMatchObject({ dims: [2, 2], data: BigInt64Array.of(1n, 2n, 0n, 1n) });
      const line = await session.run({ x: new Tensor('float32', [7, Number.NaN, 9], [3]), k });
      expect(line.values!.data).toEqual(Float32Array.of(Number.NaN, 9));
    });
  });

  it('refuses what the network can make nothing of', async () => {
    await withSession(bestOf(), { backend }, async (session) => {
      const x = new Tensor('float32', [1, 2], [2]);
      await expect(session.run({ x, k: new Tensor('int64', [3n], [1]) })).rejects.toMatchObject({
        code: 'INVALID_SHAPE',
        message: expect.stringMatching(/TopK.*k 3 is outside 0\.\.2/),
      });
      const none = new Tensor('float32', [], [0]);
      await expect(session.run({ x: none, k: new Tensor('int64', [1n], [1]) })).rejects.toMatchObject({
        code: 'INVALID_SHAPE',
      });
      expect(() => session.blocks).toThrow(/depend on the shapes/);
      const { values } = await session.run({ x: none, k: new Tensor('int64', [0n], [1]) });
      expect(values).toMatchObject({ dims: [0], data: new Float32Array(0) });
    });
  });
});
