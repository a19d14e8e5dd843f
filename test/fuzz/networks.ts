/** Random networks whose lengths are open. */
import { ELEMENT_TYPE, float32s, GraphBuilder, int64s, modelBytes, tensor } from '../helpers/onnx-builder.js';
import { randomFloats } from '../helpers/random.js';
import type { Random } from './random.js';

type Attributes = Parameters<GraphBuilder['node']>[2];

/** Images (batch, channels, lengths...) on their way through a network. */
class Network {
  readonly graph = new GraphBuilder();
  x: string;
  channels: number;
  /** Two axes became one, of which a large image would make too much. */
  isLong = false;

  constructor(
    readonly random: Random,
    /** Open axes: 1 or 2. */
    public axes: number,
  ) {
    this.channels = 2 + random.below(3);
    const open =
      axes === 1
        ? ['length']
        : random.pick([
            ['height', 'width'],
            ['height', 6],
            ['side', 'side'],
          ]);
    this.x = this.graph.input('x', ['batch', this.channels, ...open]);
  }

  node(op: string, inputs: readonly string[], attributes?: Attributes): string {
    return this.graph.node(op, inputs, attributes);
  }

  integers(...values: number[]): string {
    return this.graph.constant(int64s(...values));
  }

  weights(...shape: number[]): string {
    const size = shape.reduce((a, b) => a * b, 1);
    return this.graph.constant(tensor(randomFloats(size, this.random.below(2 ** 31)), shape));
  }

  /** One of the open axes. */
  axis(): number {
    return 2 + this.random.below(this.axes);
  }

  each<T>(make: () => T): T[] {
    return Array.from({ length: this.axes }, make);
  }

  /** The length of an axis, as a list of one. */
  lengthOf(axis: number, x = this.x): string {
    return this.node('Gather', [this.node('Shape', [x]), this.integers(axis)]);
  }

  /** A length that is computed from that of an axis. */
  partOf(axis: number): string {
    const { random } = this;
    const of = (op: string, number: number) => this.node(op, [this.lengthOf(axis), this.integers(number)]);
    return random.pick([
      () => of('Div', random.pick([2, 3, 4])),
      () => of('Sub', random.pick([1, 2, 5])),
      () => of('Mod', random.pick([3, 4, 8])),
      () => of('Min', random.pick([12, 20])),
      () => this.node('Sub', [this.lengthOf(axis), of('Div', 4)]),
      () => this.node('Mul', [of('Div', 2), this.integers(2)]),
      () => this.lengthOf(axis),
    ])();
  }

  slice(x: string, start: string, end: string, axis: number, step = 1): string {
    return this.node('Slice', [x, start, end, this.integers(axis), this.integers(step)]);
  }

  /** (batch, values) of all positions. */
  head(x: string, values: number): string {
    const flat = this.node('Flatten', [this.node('GlobalAveragePool', [x])]);
    return this.node('Gemm', [flat, this.weights(this.channels, values), this.weights(values)]);
  }

  /** A convolution that keeps all lengths. */
  same(x: string): string {
    const shape = [this.channels, this.channels, ...this.each(() => 3)];
    return this.node('Conv', [x, this.weights(...shape)], {
      pads: [...this.each(() => 1), ...this.each(() => 1)],
    });
  }

  /** Lengths cut to those of `other`. */
  cutTo(x: string, other: string): string {
    return Array.from({ length: this.axes }, (_, i) => 2 + i).reduce((cut, axis) => {
      return this.slice(cut, this.integers(0), this.lengthOf(axis, other), axis);
    }, x);
  }
}

type Layer = (net: Network) => string | undefined;

const conv: Layer = (net) => {
  const { random } = net;
  const kernel = net.each(() => 1 + random.below(3));
  const filters = 2 + random.below(3);
  const weight = net.weights(filters, net.channels, ...kernel);
  const pads = [...net.each(() => random.below(2)), ...net.each(() => random.below(2))];
  const padding: Attributes = random.chance(0.3)
    ? { auto_pad: random.pick(['SAME_UPPER', 'SAME_LOWER', 'VALID']) }
    : { pads };
  net.channels = filters;
  const y = net.node('Conv', [net.x, weight, net.weights(filters)], {
    ...padding,
    strides: net.each(() => random.pick([1, 1, 2, 2, 3, 4])),
    dilations: net.each(() => random.pick([1, 1, 2])),
  });
  return random.chance(0.5) ? net.node('Relu', [y]) : y;
};

const pool: Layer = (net) => {
  const { random } = net;
  const average = random.chance(0.4);
  const pads = random.chance(0.3) ? 1 : 0;
  return net.node(average ? 'AveragePool' : 'MaxPool', [net.x], {
    kernel_shape: net.each(() => 2 + random.below(2)),
    strides: net.each(() => random.pick([1, 2, 2, 3])),
    pads: [...net.each(() => pads), ...net.each(() => pads)],
    ceil_mode: random.below(2),
    ...(average && { count_include_pad: random.below(2) }),
  });
};

const slice: Layer = (net) => {
  const { random } = net;
  if (random.chance(0.15)) return net.slice(net.x, net.integers(-1), net.integers(-1000), net.axis(), -1);
  const start = net.integers(random.pick([0, 0, 1, 3, -6, -14]));
  const end = net.integers(random.pick([1000, -1, -2, 9, 16]));
  return net.slice(net.x, start, end, net.axis(), random.pick([1, 1, 1, 2, 3]));
};

const computedSlice: Layer = (net) => {
  const axis = net.axis();
  const [start, end] = net.random.chance(0.6)
    ? [net.integers(0), net.partOf(axis)]
    : [net.partOf(axis), net.integers(1000)];
  return net.slice(net.x, start, end, axis);
};

const resize: Layer = (net) => {
  if (net.isLong) return undefined;
  const { random } = net;
  const attributes: Attributes = {
    mode: random.pick(['nearest', 'linear']),
    coordinate_transformation_mode: random.pick(['half_pixel', 'asymmetric', 'align_corners']),
    nearest_mode: random.pick(['floor', 'round_prefer_floor', 'ceil']),
  };
  if (random.chance(0.6)) {
    const scales = float32s(1, 1, ...net.each(() => random.pick([0.5, 0.75, 1, 1.5, 2, 3])));
    return net.node('Resize', [net.x, '', net.graph.constant(scales)], attributes);
  }
  const kept = net.slice(net.node('Shape', [net.x]), net.integers(0), net.integers(2), 0);
  const sizes = Array.from({ length: net.axes }, (_, i) => net.partOf(2 + i));
  return net.node('Resize', [net.x, '', '', net.node('Concat', [kept, ...sizes], { axis: 0 })], attributes);
};

/** Filled up to a multiple of 2, 3 or 4; then neighbours become channels, or are reduced. */
const folded: Layer = (net) => {
  if (net.axes > 1) {
    net.axes = 1;
    net.isLong = true;
    return net.node('Reshape', [net.x, net.integers(0, net.channels, -1)]);
  }
  const count = net.integers(2 + net.random.below(3));
  const missing = net.node('Mod', [
    net.node('Sub', [count, net.node('Mod', [net.lengthOf(2), count])]),
    count,
  ]);
  const pads = net.node('Concat', [net.integers(0, 0, 0, 0, 0), missing], { axis: 0 });
  const full = net.node('Pad', [net.x, pads]);
  const target = net.node('Concat', [net.integers(0, net.channels, -1), count], { axis: 0 });
  return net.node('ReduceMax', [net.node('Reshape', [full, target])], { axes: [3], keepdims: 0 });
};

/** Turned and back, with a length that is read and written. */
const reshaped: Layer = (net) => {
  if (net.axes > 1) return undefined;
  const turned = net.node('Transpose', [net.x], { perm: [0, 2, 1] });
  const apart = net.node('Concat', [net.integers(0), net.lengthOf(2), net.integers(1, net.channels)], {
    axis: 0,
  });
  const joined = net.node('Reshape', [
    net.node('Reshape', [turned, apart]),
    net.integers(0, -1, net.channels),
  ]);
  return net.node('Transpose', [joined], { perm: [0, 2, 1] });
};

const split: Layer = (net) => {
  const axis = net.axis();
  const outputs = [`${net.x}_left`, `${net.x}_right`];
  const parts = net.graph.nodes('Split', [net.x], { axis }, { outputs });
  return net.node('Concat', [...parts].reverse(), { axis });
};

const padded: Layer = (net) => {
  const ends = net.each(() => net.random.below(3));
  const pads = net.integers(0, 0, ...net.each(() => net.random.below(3)), 0, 0, ...ends);
  return net.node('Pad', [net.x, pads], { mode: net.random.pick(['constant', 'reflect', 'edge']) });
};

/** Two branches of other lengths, one behind the other. */
const branches: Layer = (net) => {
  const axis = net.axis();
  const pooled = net.node('MaxPool', [net.x], {
    kernel_shape: net.each(() => 2),
    strides: Array.from({ length: net.axes }, (_, i) => (2 + i === axis ? 2 : 1)),
    pads: Array.from({ length: 2 * net.axes }, (_, i) => (i < net.axes && 2 + i !== axis ? 1 : 0)),
  });
  const other = net.random.chance(0.5) ? net.x : net.slice(net.x, net.integers(0), net.partOf(axis), axis);
  return net.node('Concat', [pooled, other], { axis });
};

/** Down and up again, beside what was there. */
const hourglass: Layer = (net) => {
  if (net.isLong) return undefined;
  const window = net.each(() => 2);
  const down = net.same(net.node('MaxPool', [net.x], { kernel_shape: window, strides: window }));
  const up = net.node('Resize', [down, '', net.graph.constant(float32s(1, 1, ...window))], {
    mode: 'nearest',
  });
  return net.node('Add', [net.cutTo(net.x, up), up]);
};

/** Positions from a table, counted, or as a share of the length. */
const positions: Layer = (net) => {
  if (net.axes > 1) return undefined;
  const length = net.lengthOf(2);
  if (net.random.chance(0.4)) {
    const table = net.weights(1, net.channels, 160);
    return net.node('Add', [net.x, net.slice(table, net.integers(0), length, 2)]);
  }
  const scalar = (id: string) => net.node('Squeeze', [id, net.integers(0)]);
  const counted = net.node('Range', [scalar(net.integers(0)), scalar(length), scalar(net.integers(1))]);
  const asFloat = (id: string) => net.node('Cast', [id], { to: ELEMENT_TYPE.float32 });
  if (net.random.chance(0.5)) return net.node('Add', [net.x, net.node('Sin', [asFloat(counted)])]);
  return net.node('Mul', [net.x, net.node('Div', [asFloat(counted), asFloat(length)])]);
};

/** Each position reads the others, or those before it. */
const attention: Layer = (net) => {
  if (net.axes > 1 || net.isLong) return undefined;
  const tokens = net.node('Transpose', [net.x], { perm: [0, 2, 1] });
  const part = () => net.node('MatMul', [tokens, net.weights(net.channels, net.channels)]);
  const keys = net.node('Transpose', [part()], { perm: [0, 2, 1] });
  let scores = net.node('MatMul', [part(), keys]);
  if (net.random.chance(0.5)) {
    const square = net.node('Concat', [net.lengthOf(2), net.lengthOf(2)], { axis: 0 });
    const hidden = net.node('ConstantOfShape', [square], { value: float32s(-1e9) });
    scores = net.node('Add', [
      scores,
      net.node('Trilu', [hidden, net.graph.constant(tensor(BigInt64Array.of(1n), []))]),
    ]);
  }
  const mixed = net.node('MatMul', [net.node('Softmax', [scores], { axis: -1 }), part()]);
  return net.node('Add', [net.x, net.node('Transpose', [mixed], { perm: [0, 2, 1] })]);
};

const block: Layer = (net) => {
  const body = net.same(net.node('Relu', [net.same(net.x)]));
  if (net.random.chance(0.4)) return net.node('Relu', [net.node('Add', [net.x, body])]);
  const flag = net.node('Greater', [net.head(net.x, 1), net.graph.constant(float32s(0))]);
  const wide = net.node('Reshape', [flag, net.integers(-1, 1, ...net.each(() => 1))]);
  if (net.random.chance(0.5)) return net.node('Where', [wide, net.node('Add', [net.x, body]), net.x]);
  const factor = net.node('Cast', [wide], { to: ELEMENT_TYPE.float32 });
  return net.node('Add', [net.x, net.node('Mul', [factor, body])]);
};

const centred: Layer = (net) => {
  const mean = net.node('ReduceMean', [net.x], { axes: [net.axis()] });
  return net.node('Sub', [net.x, mean]);
};

const summed: Layer = (net) => net.node('CumSum', [net.x, net.integers(net.axis())]);

const LAYERS: readonly Layer[] = [
  ...[
    conv,
    conv,
    pool,
    pool,
    slice,
    computedSlice,
    resize,
    folded,
    reshaped,
    split,
    padded,
    branches,
    hourglass,
  ],
  ...[positions, attention, block, block, centred, summed],
];

/** A network that ends in its lengths, in classes, or in an exit's classes or its own. */
export function makeOpenModel(random: Random): Uint8Array {
  const net = new Network(random, random.chance(0.7) ? 1 : 2);
  const layers = 1 + random.below(6);
  const leaves = random.chance(0.3);
  let early: string | undefined;
  for (let i = 0; i < layers; i++) {
    net.x = random.pick(LAYERS)(net) ?? net.x;
    if (!leaves || i !== layers >> 1) continue;
    net.x = block(net)!;
    early = net.node('Softmax', [net.head(net.x, 3)], { axis: -1 });
    net.x = block(net)!;
  }
  if (early) {
    const sure = net.node('ReduceMax', [early], { axes: [1] });
    const leave = net.node('GreaterOrEqual', [sure, net.graph.constant(float32s(0.4))]);
    const late = net.node('Softmax', [net.head(net.x, 3)], { axis: -1 });
    net.graph.output(net.node('Where', [leave, early, late]));
  } else {
    net.graph.output(random.chance(0.3) ? net.head(net.x, 3) : net.node('Relu', [net.x]));
  }
  return modelBytes(net.graph);
}
