/** Heads of maps: layers at every place of a block's map, which predict what the network's last layers would get, and how wrong that is. */
import type { GlobalPoolKind } from '../kernels/operations.js';
import type { Growth } from '../model/program/grow.js';
import {
  type Activation,
  NO_ACTIVATION,
  NONE,
  type OpName,
  type Program,
  type Step,
  type StepNamed,
  type ValueId,
} from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { type Features, type Head, type Layer, layerSteps, leadsTo } from './head.js';

/** How the network's output follows from a map of its last layers. */
export interface Tail {
  /** The map, floats [N, channels, height, width]: what heads predict. */
  readonly map: ValueId;
  /** Steps from it to the output, none of which multiplies by weights. What else they read is there behind the first block. */
  readonly steps: readonly Step[];
}

/** Operations that a tail may have: they cost little beside layers. */
const CHEAP: ReadonlySet<OpName> = new Set([
  ...(['unary', 'affine', 'binary', 'softmax', 'argMax', 'cast', 'resample', 'gather'] as const),
  ...(['reshape', 'transpose', 'expand', 'slice'] as const),
]);
/** Most places of the predicted map along a side for each place of the block's. */
const MAX_RATIO = 4;
const RELU: Activation = { kind: 'relu', alpha: 0, beta: 0 };
const SIGMOID: Activation = { kind: 'sigmoid', alpha: 0, beta: 0 };

/** The tail of a network that answers with a map, or with what follows from one; undefined for all others. */
export function tailOf(program: Program): Tail | undefined {
  const { values, steps, blocks, outputs, batching } = program;
  if (outputs.length !== 1 || batching !== 'item' || blocks.length === 0) return undefined;
  const deep = behindBlocks(program);
  const makers = new Map(steps.flatMap((step, i) => step.outputs.map((id) => [id, i] as const)));
  const taken = new Set<number>();
  let found: Tail | undefined;
  for (let at = outputs[0]!.value; deep.has(at); ) {
    const { dtype, shape } = values[at]!;
    if (dtype === 'float32' && shape.length === 4 && sizeOf(shape.slice(2)) > 1) {
      found = { map: at, steps: [...taken].sort((a, b) => a - b).map((i) => steps[i]!) };
    }
    const step = steps[makers.get(at)!]!;
    const from = new Set(step.inputs.filter((id) => deep.has(id)));
    const aside = step.inputs.filter((id) => !deep.has(id));
    if (from.size !== 1 || !CHEAP.has(step.op) || !takeCheap(program, makers, aside, taken)) break;
    taken.add(makers.get(at)!);
    [at] = from as Set<ValueId> & [ValueId];
  }
  return found;
}

/** Values that depend on what blocks compute. */
function behindBlocks({ steps, blocks }: Program): ReadonlySet<ValueId> {
  const deep = new Set<ValueId>();
  for (const [i, { inputs, outputs }] of steps.entries()) {
    const inside = blocks.some(({ first, end }) => i >= first && i < end);
    if (inside || inputs.some((id) => deep.has(id))) for (const id of outputs) deep.add(id);
  }
  return deep;
}

/** Adds the steps behind the first block that compute these values; false if one of them isn't cheap. */
function takeCheap(
  { steps, blocks }: Program,
  makers: ReadonlyMap<ValueId, number>,
  ids: readonly ValueId[],
  taken: Set<number>,
): boolean {
  const waiting = [...ids];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    const maker = makers.get(id);
    if (maker === undefined || maker < blocks[0]!.end || taken.has(maker)) continue;
    if (!CHEAP.has(steps[maker]!.op)) return false;
    taken.add(maker);
    waiting.push(...steps[maker]!.inputs);
  }
  return true;
}

/**
 * Places of the predicted map along a side for each place of a block's map.
 * @returns undefined where no head fits
 */
export function ratioOf(
  [, , height, width]: readonly number[],
  [, , rows, columns]: readonly number[],
): number | undefined {
  const ratio = rows! / height!;
  const fits = Number.isInteger(ratio) && ratio <= MAX_RATIO && columns! === ratio * width!;
  return fits ? ratio : undefined;
}

/** Whether a head of maps fits a block's map and the network's tail. */
export function fitsMap(
  { features, layers, score = [] }: Head,
  growth: Growth,
  from: ValueId,
  tail: Tail,
): boolean {
  const { dtype, shape } = growth.valueOf(from);
  const [, told = 0, ...sides] = growth.valueOf(tail.map).shape;
  const ratio = dtype === 'float32' && shape.length === 4 ? ratioOf(shape, [1, told, ...sides]) : undefined;
  // What is computed at each place has floats.
  if (ratio === undefined || score.length < 2 || [...layers, ...score].some(({ rounding }) => rounding))
    return false;
  const [, channels = 0] = shape;
  const [hidden, last] = [score.slice(0, -1), score.slice(-1)];
  const width = hidden.at(-1)!.bias.length;
  return (
    leadsTo(layers, channels, told * ratio ** 2) &&
    leadsTo(hidden, channels, width) &&
    leadsTo(last, width + surenessWidth(features, told), 1)
  );
}

/** Numbers of an item that say how sure its classes are: of each, the means of the probability and of its square. */
export const surenessWidth = (features: Features, channels: number) =>
  features === 'classes' ? 2 * channels : 0;

/** What a head of maps computes. */
export interface MapSteps {
  readonly steps: readonly Step[];
  /** As the network's output. */
  readonly answer: ValueId;
  /** What the last layer of the score reads, [N, n]. */
  readonly hidden: ValueId;
  /** [N, 1]. */
  readonly score: ValueId;
}

/** @param from the block's map, which the head fits */
export function mapSteps(growth: Growth, after: string, head: Head, from: ValueId, tail: Tail): MapSteps {
  const steps = new StepList(growth);
  const [what, ofScore] = [`exit after ${after}`, `score after ${after}`];
  const [items = 0] = growth.valueOf(from).shape;
  const target = growth.valueOf(tail.map).shape;
  const map = steps.woven(what, steps.layers(what, from, head.layers, NO_ACTIVATION), target);
  const score = head.score!;
  const seen = steps.layers(ofScore, from, score.slice(0, -1), RELU);
  const pool = (kind: GlobalPoolKind, x: ValueId) =>
    steps.add('globalPool', [x], { kind }, `${ofScore}/${kind}`, growth.valueOf(x).shape.slice(0, 2));
  let hidden = pool('avg', seen);
  if (head.features === 'classes') {
    const likely = steps.likely(ofScore, tail, map);
    const parts = [hidden, pool('avg', likely), pool('meanSquare', likely)];
    const width = parts.reduce((sum, id) => sum + growth.valueOf(id).shape[1]!, 0);
    hidden = steps.add('concat', parts, { axis: 1 }, `${ofScore}/seen`, [items, width]);
  }
  const rated = layerSteps(growth, `${ofScore}/last`, score.slice(-1), hidden);
  steps.list.push(...rated.steps);
  const expected = steps.add('unary', [rated.result], { act: SIGMOID }, `${ofScore}/number`, [items, 1]);
  return { answer: steps.ended(what, tail, map), steps: steps.list, hidden, score: expected };
}

/** Steps on maps. */
class StepList {
  readonly list: Step[] = [];

  constructor(private readonly growth: Growth) {}

  add<Op extends OpName>(
    op: Op,
    inputs: readonly ValueId[],
    attrs: StepNamed<Op>['attrs'],
    name: string,
    shape: readonly number[],
  ): ValueId {
    const result = this.growth.value(name, 'float32', shape);
    this.list.push({ op, inputs, outputs: [result], attrs } as Step);
    return result;
  }

  /** Layers at every place, with a ReLU between each two. */
  layers(what: string, from: ValueId, layers: readonly Layer[], end: Activation): ValueId {
    const { growth } = this;
    let x = from;
    for (const [i, { weight, bias }] of layers.entries()) {
      const [items = 0, channels = 0, ...sides] = growth.valueOf(x).shape;
      const w = growth.constant(`${what}/weight ${i}`, weight, [bias.length, channels, 1, 1]);
      const b = growth.constant(`${what}/bias ${i}`, bias, [bias.length]);
      const act = i < layers.length - 1 ? RELU : end;
      const attrs = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], group: 1, act };
      x = this.add('conv', [x, w, b, NONE], attrs, `${what}/layer ${i}`, [items, bias.length, ...sides]);
    }
    return x;
  }

  /** A map of that shape, whose channels at each place may hold those of several neighbours (Shi et al. 2016). */
  woven(what: string, from: ValueId, to: readonly number[]): ValueId {
    const [items = 0, , height = 0, width = 0] = this.growth.valueOf(from).shape;
    const [, channels = 0, rows = 0] = to;
    const ratio = rows / height;
    if (ratio === 1) return from;
    const apart = [items, channels, ratio, ratio, height, width];
    const split = this.add('reshape', [from], {}, `${what}/apart`, apart);
    const perm = [0, 1, 4, 2, 5, 3];
    const shape = perm.map((axis) => apart[axis]!);
    const turned = this.add('transpose', [split], { perm }, `${what}/woven`, shape);
    return this.add('reshape', [turned], {}, `${what}/map`, to);
  }

  /** Probabilities of the classes at each place; of one channel, that of its being above 0, or what it holds. */
  likely(what: string, tail: Tail, map: ValueId): ValueId {
    const { shape } = this.growth.valueOf(map);
    const name = `${what}/probabilities`;
    if (shape[1]! > 1) return this.add('softmax', [map], { axis: 1, log: false }, name, shape);
    const maker = this.growth.program.steps.find(({ outputs }) => outputs.includes(tail.map))!;
    const known = 'act' in maker.attrs && maker.attrs.act.kind === 'sigmoid';
    return known ? map : this.add('unary', [map], { act: SIGMOID }, name, shape);
  }

  /** The network's answer, if its last layers got this map. */
  ended(what: string, { map, steps }: Tail, predicted: ValueId): ValueId {
    const now = new Map([[map, predicted]]);
    let answer = predicted;
    for (const { inputs, outputs, ...step } of steps) {
      const read = inputs.map((id) => now.get(id) ?? id);
      const found = outputs.map((id) => {
        const { name, dtype, shape } = this.growth.valueOf(id);
        return this.growth.value(`${what}/${name}`, dtype, shape);
      });
      for (const [k, id] of outputs.entries()) now.set(id, found[k]!);
      this.list.push({ ...step, inputs: read, outputs: found } as Step);
      answer = found[0]!;
    }
    return answer;
  }
}
