/** Runs the float network on items and records the distribution of its values. */
import type { DataModel } from '../classify/data-model.js';
import type { Work } from '../classify/work.js';
import { prefetch } from '../data/prefetch.js';
import { encodeModelProto } from '../model/read/proto.js';
import type { SessionOptions } from '../session/options.js';
import { InferenceSession } from '../session/session.js';
import type { TensorMap } from '../skip/observer.js';
import type { Tensor } from '../tensor/tensor.js';
import { Histogram } from './histogram.js';
import type { Network } from './network.js';
import type { Shapes, ValueShape } from './plan.js';

export type Engine = Pick<SessionOptions, 'backend' | 'isa' | 'threads'>;

/** Opens a network with other outputs than its own. */
export async function openWith(
  network: Network,
  names: readonly string[],
  engine: Engine,
): Promise<InferenceSession> {
  const bytes = encodeModelProto(network.build(names.map((name) => ({ name }))));
  return InferenceSession.create(bytes, { ...engine, policy: 'full' });
}

/** Type and shape of every value that the network computes, for one item. */
export async function shapesOf(network: Network, feeds: TensorMap, engine: Engine): Promise<Shapes> {
  const names = network.nodes.flatMap(({ output = [] }) => output.filter((name) => name !== ''));
  const session = await openWith(network, names, engine);
  try {
    const shapes = new Map<string, ValueShape>();
    for (const [name, { type, dims }] of Object.entries(await session.run(feeds)))
      shapes.set(name, { type, dims });
    for (const name of network.inputs) shapes.set(name, feeds[name]!);
    return shapes;
  } finally {
    await session.release();
  }
}

/** What was seen of one value. */
export interface Observed {
  readonly histogram: Histogram;
  /** By channel: the mean, and the largest distance from zero. */
  readonly means: Float64Array;
  readonly largest: Float64Array;
}

/** What is run, and on what. */
export interface Observing {
  readonly opened: DataModel;
  readonly engine: Engine;
  readonly items: readonly Tensor[];
  readonly work: Work;
}

/**
 * @param channelAxes of the values to record: the axis of their channels, for an item
 */
export async function observe(
  network: Network,
  channelAxes: ReadonlyMap<string, number>,
  { opened, engine, items, work }: Observing,
): Promise<Map<string, Observed>> {
  const inputs = new Set(network.inputs);
  const names = [...channelAxes.keys()].filter((name) => !inputs.has(name));
  const session = await openWith(network, names, engine);
  try {
    const found = new Map<string, Recorder>();
    const run = async (item: Tensor) => {
      const feeds = opened.feeds(item);
      return { feeds, outputs: await session.run(feeds) };
    };
    let done = 0;
    for await (const { feeds, outputs } of work.each(prefetch(items, run, 2))) {
      work.report('observing', ++done, items.length);
      for (const [name, axis] of channelAxes) {
        const { data, dims } = inputs.has(name) ? feeds[name]! : outputs[name]!;
        let recorder = found.get(name);
        if (!recorder) {
          recorder = new Recorder(dims[axis]!);
          found.set(name, recorder);
        }
        recorder.add(
          data as Float32Array,
          dims.slice(axis + 1).reduce((a, b) => a * b, 1),
        );
      }
    }
    return new Map([...found].map(([name, recorder]) => [name, recorder.observed()]));
  } finally {
    await session.release();
  }
}

class Recorder {
  readonly #histogram = new Histogram();
  readonly #sums: Float64Array;
  readonly #largest: Float64Array;
  #count = 0;

  constructor(private readonly channels: number) {
    this.#sums = new Float64Array(channels);
    this.#largest = new Float64Array(channels);
  }

  /** @param inner number of elements of one channel that follow each other */
  add(values: Float32Array, inner: number): void {
    this.#histogram.add(values);
    for (let run = 0, at = 0; at < values.length; run++) {
      let [sum, largest] = [0, 0];
      for (const end = at + inner; at < end; at++) {
        sum += values[at]!;
        largest = Math.max(largest, Math.abs(values[at]!));
      }
      const channel = run % this.channels;
      this.#sums[channel]! += sum;
      this.#largest[channel] = Math.max(this.#largest[channel]!, largest);
    }
    this.#count += values.length / this.channels;
  }

  observed(): Observed {
    return {
      histogram: this.#histogram,
      means: this.#sums.map((sum) => sum / this.#count),
      largest: this.#largest,
    };
  }
}
