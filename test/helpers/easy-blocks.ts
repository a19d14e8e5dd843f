import { float32s, type GraphBuilder, tensor } from './onnx-builder.js';
import { randomFloats } from './random.js';

/**
 * Adds blocks x + B relu(A x + b) behind `stream`, a map [n, channels, height, width]. Its last channel says where it is hard: where that
 * is 0, no unit of any block is above 0, so that the blocks add nothing.
 * @returns the last block's output
 */
export function easyBlocks(
  graph: GraphBuilder,
  stream: string,
  { blocks, channels, hidden }: { blocks: number; channels: number; hidden: number },
): string {
  let last = stream;
  for (let block = 0; block < blocks; block++) {
    const into = randomFloats(hidden * channels, 2 * block + 1).map((w, i) =>
      i % channels === channels - 1 ? 6 : w,
    );
    const back = randomFloats(channels * hidden, 2 * block + 2).map((w, i) =>
      Math.floor(i / hidden) === channels - 1 ? 0 : 0.1 * w,
    );
    const bias = graph.constant(float32s(...Array.from({ length: hidden }, () => -6)));
    const a = graph.constant(tensor(into, [hidden, channels, 1, 1]));
    const b = graph.constant(tensor(back, [channels, hidden, 1, 1]));
    const found = graph.node('Relu', [graph.node('Conv', [last, a, bias])]);
    last = graph.node('Add', [last, graph.node('Conv', [found, b])]);
  }
  return last;
}
