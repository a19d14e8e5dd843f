/** A network that wasn't made by this project's recipes, and pictures for it. */
import sharp from 'sharp';
import { folderOf } from './files.js';
import { float32s, GraphBuilder, modelBytes, tensor } from './onnx-builder.js';
import { randomFloats, uniform } from './random.js';

export const SIDE = 16;
const [CHANNELS, CLASSES, BLOCKS] = [8, 5, 6] as const;

/** How a network ends, and which weights it has. */
interface Form {
  readonly seed?: number;
  readonly output?: string;
  readonly classes?: number;
  readonly side?: number;
  /** If it isn't `side`. */
  readonly width?: number;
  readonly colours?: number;
  readonly channels?: number;
  /** Up to six. */
  readonly blocks?: number;
  /** `normalize` is torch.nn.functional.normalize as PyTorch exports it, with a name for the length that it doesn't know. */
  readonly end?: 'Softmax' | 'LogSoftmax' | 'Sigmoid' | 'normalize';
}

/** Pre-activation blocks with batch normalisation and random weights. */
export function foreign({
  output = 'votes',
  classes = CLASSES,
  side = SIDE,
  width = side,
  colours = 3,
  channels = CHANNELS,
  blocks = BLOCKS,
  end,
  seed = 0,
}: Form = {}): Uint8Array {
  const graph = new GraphBuilder();
  let made = seed;
  const weights = (size: number, scale: number, shape: readonly number[]) =>
    graph.constant(
      tensor(
        randomFloats(size, ++made).map((value) => scale * value),
        shape,
      ),
    );
  const conv = (x: string, from: number, to: number, kernel: number, scale: number) =>
    graph.node('Conv', [x, weights(to * from * kernel ** 2, scale, [to, from, kernel, kernel])], {
      pads: Array.from({ length: 4 }, () => (kernel - 1) / 2),
    });
  const ones = graph.constant(float32s(...Array.from({ length: channels }, () => 1)));
  const zeros = graph.constant(float32s(...Array.from({ length: channels }, () => 0)));
  let stream = conv(graph.input('picture', ['n', colours, side, width]), colours, channels, 3, 0.5);
  for (let block = 0; block < blocks; block++) {
    const normal = graph.node('BatchNormalization', [stream, ones, zeros, zeros, ones]);
    const narrow = graph.node('Relu', [conv(graph.node('Relu', [normal]), channels, channels, 1, 0.3)]);
    stream = graph.node('Add', [stream, conv(narrow, channels, channels, 3, 0.05)]);
  }
  // Networks of fewer blocks share all weights that they have.
  made = seed + 1 + 2 * BLOCKS;
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
  const scores = graph.node('Gemm', [pooled, weights(channels * classes, 4, [classes, channels])], {
    transB: 1,
  });
  const options = { outputs: [output] };
  if (end !== 'normalize') {
    graph.nodes(end ?? 'Identity', [scores], end?.endsWith('Softmax') ? { axis: 1 } : {}, options);
    return modelBytes(graph.output(output, ['n', classes]));
  }
  const length = graph.node('ReduceL2', [scores], { axes: [1], keepdims: 1 });
  const least = graph.constant(tensor(Float32Array.of(1e-12), []));
  const wide = graph.node('Expand', [graph.node('Clip', [length, least]), graph.node('Shape', [scores])]);
  graph.nodes('Div', [scores, wide], {}, options);
  return modelBytes(graph.output(output, ['n', `Div${output}_dim_1`]));
}

const drawn = new Map<number, Promise<string>>();

/** A folder of single-colour pictures with some noise, in arbitrarily named folders. It is the same each time. */
export function pictures(count: number): Promise<string> {
  const known = drawn.get(count) ?? draw(count);
  drawn.set(count, known);
  return known;
}

async function draw(count: number): Promise<string> {
  const random = uniform(3);
  const files: Record<string, Uint8Array> = {};
  for (let i = 0; i < count; i++) {
    const colour = [random(), random(), random()];
    const pixels = Uint8Array.from({ length: 3 * SIDE * SIDE }, (_, at) =>
      Math.min(255, 200 * colour[at % 3]! + 55 * random()),
    );
    const raw = { width: SIDE, height: SIDE, channels: 3 } as const;
    files[`day ${i % 3}/${i}.png`] = await sharp(pixels, { raw }).png().toBuffer();
  }
  return folderOf(files);
}
