/** Small residual networks with seeded weights for each task, whose later blocks change less and less, and items for them. */
import type { Feeds } from 'lib/session/feeds.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { GraphBuilder, int64s, modelBytes, tensor } from './onnx-builder.js';
import { randomFloats, uniform } from './random.js';

const [WIDTH, BLOCKS, TOKENS, SIDE, BOXES, SAMPLES] = [12, 6, 7, 10, 5, 4000] as const;

export const FORMS = [
  'numbers',
  'number',
  'labels',
  'label',
  'logits',
  'two outputs',
  'grades',
  'vector',
  'map',
  'mask',
  'class map',
  'boxes',
  'columns',
  'kept boxes',
  'tokens',
  'steps',
  'ranking',
  'pair',
  'audio',
  'bands',
] as const;
export type FormName = (typeof FORMS)[number];

class Weights {
  #made = 0;
  constructor(
    readonly graph: GraphBuilder,
    private readonly seed: number,
  ) {}

  of(shape: readonly number[], scale: number): string {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = randomFloats(size, 1000 * this.seed + ++this.#made).map((value) => scale * value);
    return this.graph.constant(tensor(values, shape));
  }
}

/** The strength of block `b`. */
const strength = (b: number) => 0.5 * 0.35 ** b;

/** A network that ends in this form. */
export function taskNetwork(form: FormName, seed = 1): Uint8Array {
  const graph = new GraphBuilder();
  const weights = new Weights(graph, seed);
  const matrix = (x: string, from: number, to: number, scale = 1 / Math.sqrt(from)) =>
    graph.node('MatMul', [x, weights.of([from, to], scale)]);
  const conv = (
    x: string,
    from: number,
    to: number,
    kernel: readonly number[],
    scale: number,
    stride = 1,
  ) => {
    const padding = stride === 1 ? kernel.map((k) => (k - 1) / 2) : kernel.map(() => 0);
    return graph.node('Conv', [x, weights.of([to, from, ...kernel], scale)], {
      pads: [...padding, ...padding],
      strides: kernel.map(() => stride),
    });
  };
  const blocks = (stream: string, body: (x: string, scale: number) => string) => {
    let x = stream;
    for (let b = 0; b < BLOCKS; b++) x = graph.node('Add', [x, body(x, strength(b))]);
    return x;
  };
  const dense = (x: string) =>
    blocks(x, (y, scale) => matrix(graph.node('Relu', [matrix(y, WIDTH, WIDTH)]), WIDTH, WIDTH, scale));
  const end = (
    op: string,
    inputs: readonly string[],
    name: string,
    shape: readonly (number | string)[],
    attributes = {},
  ) => {
    graph.nodes(op, inputs, attributes, { outputs: [name] });
    graph.output(name, shape);
  };
  const built = () => modelBytes(graph);

  if (['map', 'mask', 'class map', 'bands', 'grades', 'pair'].includes(form)) {
    const channels = form === 'bands' || form === 'pair' ? 4 : 3;
    const first = graph.input('picture', ['n', form === 'bands' ? 4 : 3, SIDE, SIDE]);
    const given =
      form === 'pair'
        ? graph.node('Concat', [first, graph.input('depth', ['n', 1, SIDE, SIDE])], { axis: 1 })
        : first;
    const stem = conv(given, channels, WIDTH, [3, 3], 0.4);
    const stream = blocks(stem, (x, scale) =>
      conv(graph.node('Relu', [conv(x, WIDTH, WIDTH, [3, 3], 0.15)]), WIDTH, WIDTH, [1, 1], scale),
    );
    if (['bands', 'grades', 'pair'].includes(form)) {
      const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
      const scores = matrix(pooled, WIDTH, 4, 3);
      if (form === 'grades') end('Identity', [scores], 'grades', ['n', 4]);
      else end('Softmax', [scores], 'probabilities', ['n', 4], { axis: 1 });
      return built();
    }
    const head = conv(stream, WIDTH, form === 'mask' ? 1 : 4, [1, 1], 0.5);
    if (form === 'mask') end('Sigmoid', [head], 'mask', ['n', 1, SIDE, SIDE]);
    else if (form === 'map') end('Identity', [head], 'map', ['n', 4, SIDE, SIDE]);
    else {
      graph.nodes('ArgMax', [head], { axis: 1, keepdims: 0 }, { outputs: ['classes'] });
      graph.output('classes', ['n', SIDE, SIDE], 'int64');
    }
    return built();
  }
  if (form === 'audio') {
    const stem = conv(graph.input('samples', ['n', 1, SAMPLES]), 1, WIDTH, [8], 0.4, 8);
    const stream = blocks(stem, (x, scale) =>
      conv(graph.node('Relu', [conv(x, WIDTH, WIDTH, [3], 0.3)]), WIDTH, WIDTH, [1], scale),
    );
    const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [graph.node('Relu', [stream])])]);
    end('Softmax', [matrix(pooled, WIDTH, 5, 4)], 'keyword', ['n', 5], { axis: 1 });
    return built();
  }
  if (form === 'tokens' || form === 'steps') {
    const stream = dense(matrix(graph.input('frames', ['n', TOKENS, 6]), 6, WIDTH));
    const head = matrix(stream, WIDTH, 5);
    end(form === 'tokens' ? 'Softmax' : 'LogSoftmax', [head], form, ['n', TOKENS, 5], { axis: 2 });
    return built();
  }
  const stream = dense(matrix(graph.input('x', ['n', 6]), 6, WIDTH));
  const scores = (to: number, scale = 1) => matrix(stream, WIDTH, to, scale);
  if (form === 'numbers') end('Identity', [scores(4)], 'numbers', ['n', 4]);
  if (form === 'number') end('Softplus', [scores(1)], 'number', ['n', 1]);
  if (form === 'labels') end('Sigmoid', [scores(6)], 'labels', ['n', 6]);
  if (form === 'label') end('Sigmoid', [scores(1)], 'label', ['n', 1]);
  if (form === 'logits' || form === 'two outputs') end('Identity', [scores(5)], 'logits', ['n', 5]);
  if (form === 'two outputs') end('Relu', [stream], 'features', ['n', WIDTH]);
  if (form === 'ranking') end('Identity', [scores(10)], 'relevance', ['n', 10]);
  if (form === 'vector') {
    const vector = scores(16);
    const length = graph.node('ReduceL2', [vector], { axes: [1], keepdims: 1 });
    const least = graph.constant(tensor(Float32Array.of(1e-12), []));
    const wide = graph.node('Expand', [graph.node('Clip', [length, least]), graph.node('Shape', [vector])]);
    end('Div', [vector, wide], 'embedding', ['n', 16]);
  }
  if (form === 'boxes' || form === 'columns' || form === 'kept boxes') {
    // Centres and sizes between 0 and 1, and three classes.
    const parts = (to: number, shape: readonly number[]) =>
      graph.node('Sigmoid', [graph.node('Reshape', [scores(to), graph.constant(int64s(...shape))])]);
    if (form === 'columns') {
      const columns = graph.node(
        'Concat',
        [parts(4 * BOXES, [-1, 4, BOXES]), parts(3 * BOXES, [-1, 3, BOXES])],
        { axis: 1 },
      );
      end('Identity', [columns], 'columns', ['n', 7, BOXES]);
    } else if (form === 'kept boxes') {
      // How many there are depends on the input.
      const [boxes, judged] = [parts(4 * BOXES, [BOXES, 4]), parts(3 * BOXES, [BOXES, 3])];
      const best = graph.node('ReduceMax', [judged], { axes: [1], keepdims: 0 });
      const marks = graph.node('Greater', [best, graph.constant(tensor(Float32Array.of(0.6), []))]);
      const kept = graph.node('Reshape', [graph.node('NonZero', [marks]), graph.constant(int64s(-1))]);
      end('Gather', [boxes, kept], 'boxes', ['k', 4]);
      end('Gather', [judged, kept], 'scores', ['k', 3]);
    } else {
      end('Identity', [parts(4 * BOXES, [-1, BOXES, 4])], 'boxes', ['n', BOXES, 4]);
      end('Identity', [parts(3 * BOXES, [-1, BOXES, 3])], 'scores', ['n', BOXES, 3]);
    }
  }
  return built();
}

/** Inputs of a network of this form. */
export function taskItems(form: FormName, count: number, seed = 1): Feeds[] {
  const random = uniform(seed);
  const floats = (dims: readonly number[], scale = 1) => {
    const size = dims.reduce((x, y) => x * y, 1);
    return new Tensor(
      'float32',
      Float32Array.from({ length: size }, () => scale * (2 * random() - 1)),
      dims,
    );
  };
  /** Noise around a level for each channel. */
  const picture = (channels: number) => {
    const [levels, data] = [
      Array.from({ length: channels }, () => 2 * random() - 1),
      floats([channels, SIDE ** 2], 0.3).data,
    ];
    const pixels = Float32Array.from(
      data as Float32Array,
      (value, i) => value + levels[Math.floor(i / SIDE ** 2)]!,
    );
    return new Tensor('float32', pixels, [1, channels, SIDE, SIDE]);
  };
  /** A tone with some noise. */
  const tone = () => {
    const [pitch, noise] = [0.05 + 0.7 * random(), floats([SAMPLES], 0.1).data as Float32Array];
    return new Tensor(
      'float32',
      noise.map((value, i) => value + Math.sin(pitch * i)),
      [1, 1, SAMPLES],
    );
  };
  return Array.from({ length: count }, (): Feeds => {
    if (form === 'pair') return { picture: picture(3), depth: picture(1) };
    if (form === 'bands') return { picture: picture(4) };
    if (form === 'audio') return { samples: tone() };
    if (['map', 'mask', 'class map', 'grades'].includes(form)) return { picture: picture(3) };
    if (form === 'tokens' || form === 'steps') return { frames: floats([1, TOKENS, 6], 2) };
    return { x: floats([1, 6], 2) };
  });
}
