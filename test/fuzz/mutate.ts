/** Mutations of trees (a decoded model, JSON) at any place, and of bytes. */
import type { ModelProto } from 'lib/model/read/proto.js';
import type { Random } from './random.js';

type Container = Record<string | number, unknown>;
interface Place {
  readonly holder: Container;
  readonly key: string | number;
  /** The key, or the list's key for an item of a list. */
  readonly field: string;
}

const isWide = (value: object): boolean => 'low' in value && 'high' in value;
const isLeaf = (value: unknown): boolean =>
  typeof value !== 'object' || value === null || value instanceof Uint8Array || isWide(value);

function placesOf(root: unknown): Place[] {
  const places: Place[] = [];
  const walk = (holder: Container, name: string) => {
    const isList = Array.isArray(holder);
    for (const key of isList ? holder.keys() : Object.keys(holder)) {
      const field = isList ? name : String(key);
      places.push({ holder, key, field });
      if (!isLeaf(holder[key])) walk(holder[key] as Container, field);
    }
  };
  if (!isLeaf(root)) walk(root as Container, '');
  return places;
}

/** Changes `root` at one place: removes, repeats or moves the value, or replaces it by the result of `replace`. */
function mutateTree(
  root: unknown,
  random: Random,
  replace: (place: Place, places: readonly Place[]) => unknown,
): void {
  const places = placesOf(root);
  if (places.length === 0) return;
  const place = random.pick(places);
  const { holder, key } = place;
  const value = holder[key];
  if (Array.isArray(holder)) {
    const other = random.below(holder.length);
    const change = random.below(8);
    if (change === 0) holder.splice(Number(key), 1);
    else if (change === 1) holder.splice(other, 0, structuredClone(value));
    else if (change === 2) [holder[Number(key)], holder[other]] = [holder[other], value];
    else if (change === 3 && random.chance(0.2)) {
      const times = random.pick([4, 40, 1000]);
      for (let i = 0; i < times && holder.length < 5000; i++) holder.push(structuredClone(value));
    } else if (isLeaf(value)) holder[Number(key)] = replace(place, places);
    else holder[Number(key)] = structuredClone(random.pick(alike(places, place)));
  } else if (random.chance(0.15)) delete holder[key];
  else if (isLeaf(value)) holder[key] = replace(place, places);
  else if (Array.isArray(value) && random.chance(0.2)) holder[key] = [];
  else holder[key] = structuredClone(random.pick(alike(places, place)));
}

/** The values at all places with the same field as `place`. */
function alike(places: readonly Place[], { holder, field }: Place): unknown[] {
  const isList = Array.isArray(holder);
  const same = places.filter((other) => other.field === field && Array.isArray(other.holder) === isList);
  return same.map((other) => other.holder[other.key]);
}

const INTEGERS = [
  0n,
  1n,
  -1n,
  2n,
  3n,
  4n,
  5n,
  7n,
  8n,
  16n,
  255n,
  256n,
  1023n,
  1024n,
  1025n,
  2n ** 16n,
  2n ** 20n,
];
const GREAT = [
  2n ** 24n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  -(2n ** 31n),
  -(2n ** 63n),
];
const FLOATS = [
  0,
  -0,
  1,
  -1,
  0.5,
  1e-45,
  -1e-30,
  1e38,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
];
const TEXTS = [
  '',
  'x',
  '__proto__',
  'constructor',
  '\u0000',
  '\u001b[2J',
  'a'.repeat(3000),
  '🦊',
  '../../etc/passwd',
  '0',
  '-1',
];

export const OPERATORS = (
  'Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv Div Dropout Equal ' +
  'Expand Flatten Gather Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity ' +
  'If LeakyRelu Less LessOrEqual LogSoftmax MatMul MaxPool Mul Neg Not OneHot Or Pad Range ReduceMean Relu Reshape ' +
  'Shape Sigmoid Size Slice Softmax Split Squeeze Sub Sum Tanh TopK Transpose Unsqueeze Where QuantizeLinear ' +
  'DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul MatMulInteger'
).split(' ');
const ATTRIBUTES = (
  'kernel_shape pads strides dilations group auto_pad ceil_mode count_include_pad storage_order axis axes keepdims ' +
  'perm to alpha beta epsilon transA transB mode value value_ints value_float select_last_index largest allowzero start end ' +
  'num_outputs split block_size output_dtype bits K N then_branch else_branch noop_with_empty_axes training_mode'
).split(' ');
/** Fields with few possible values. */
const SMALL = new Set(['dataType', 'elemType', 'type', 'dataLocation', 'irVersion']);
const REAL = new Set(['f', 'floats', 'floatData', 'doubleData']);

function int64(value: bigint): { low: number; high: number } {
  return { low: Number(BigInt.asIntN(32, value)), high: Number(BigInt.asIntN(64, value) >> 32n) };
}

function integer(random: Random, before: number | bigint): bigint {
  const near = BigInt.asIntN(64, BigInt(before));
  const choice = random.below(6);
  if (choice === 0) return near + random.pick([-1n, 1n]);
  if (choice === 1) return near * random.pick([2n, -1n, 1024n]);
  if (choice === 2) return BigInt(random.below(10));
  return random.pick(random.chance(0.7) ? INTEGERS : GREAT);
}

function leafOfModel(random: Random): (place: Place, places: readonly Place[]) => unknown {
  return ({ holder, key, field }, places) => {
    const value = holder[key];
    if (typeof value === 'string') {
      if (field === 'opType' && random.chance(0.9)) return random.pick(OPERATORS);
      if (field === 'name' && 'type' in holder && random.chance(0.5)) return random.pick(ATTRIBUTES);
      const texts = places.map((place) => place.holder[place.key]).filter((text) => typeof text === 'string');
      return random.pick(random.chance(0.8) ? texts : TEXTS);
    }
    if (value instanceof Uint8Array) return mutateBytes(value, random);
    if (typeof value === 'number' && REAL.has(field)) return random.pick(FLOATS);
    if (SMALL.has(field)) return random.chance(0.9) ? random.below(24) : random.pick([-1, 2 ** 31 - 1]);
    if (typeof value === 'number') return int64(integer(random, Math.trunc(value) || 0));
    if (typeof value !== 'object' || value === null) return value;
    const { low, high } = value as { low: number; high: number };
    return int64(integer(random, (BigInt(high) << 32n) | BigInt(low >>> 0)));
  };
}

/** Adds a part that a model may have: an attribute, a node of another model, an output. */
function addTo({ graph }: ModelProto, random: Random, donor: ModelProto): void {
  const nodes = graph?.node ?? [];
  if (!graph || nodes.length === 0) return;
  const node = random.pick(nodes);
  const values = nodes.flatMap(({ output = [], input = [] }) => [...output, ...input]);
  const choice = random.below(4);
  if (choice === 0) {
    const ints = Array.from({ length: random.below(5) }, () => int64(integer(random, 1)));
    const name = random.pick(ATTRIBUTES);
    const one = { name, type: 2, i: int64(integer(random, 1)) };
    const attributes = [one, { name, type: 7, ints }, { name, type: 1, f: random.pick(FLOATS) }];
    node.attribute = [...(node.attribute ?? []), random.pick(attributes)];
  } else if (choice === 1) {
    const taken = structuredClone(random.pick(donor.graph?.node ?? nodes));
    taken.input = taken.input?.map(() => random.pick(values));
    taken.output = node.output ?? [];
    nodes[nodes.indexOf(node)] = taken;
  } else if (choice === 2) {
    node.input = [...(node.input ?? []), random.pick(values)];
  } else {
    const output = { name: random.pick(values), type: { tensorType: { elemType: 1 } } };
    graph.output = [...(graph.output ?? []), output];
  }
}

/** A constant with other numbers, of another type, or longer or shorter than what it belongs to. */
function changeConstant({ graph }: ModelProto, random: Random): void {
  const constants = (graph?.initializer ?? []).filter(({ rawData }) => rawData instanceof Uint8Array);
  if (constants.length === 0) return;
  const constant = random.pick(constants);
  const raw = constant.rawData as Uint8Array;
  const dims = constant.dims ?? [];
  const choice = random.below(4);
  if (choice === 0 && constant.dataType === 1 && raw.length >= 4) {
    const numbers = new Float32Array(raw.slice(0, raw.length - (raw.length % 4)).buffer);
    numbers[random.below(numbers.length)] = random.pick(FLOATS);
    constant.rawData = new Uint8Array(numbers.buffer);
  } else if (choice === 1) {
    constant.dataType = random.pick([2, 3, 6, 21, 22]);
  } else if (choice === 2 && raw.length > 0) {
    constant.rawData = raw.map(() => random.pick([0, 1, 0x7f, 0x80, 0xff]));
  } else if (dims.length === 1 && raw.length > 0) {
    const size = constant.dataType === 1 || constant.dataType === 6 ? 4 : 1;
    const count = random.pick([0, 1, 2, 3, 5, 8]);
    constant.dims = [int64(BigInt(count))] as never;
    constant.rawData = Uint8Array.from({ length: count * size }, (_, i) => raw[i % raw.length]!);
  }
}

/** Changes fields, dimensions, attributes and nodes of `model` in one to five places. */
export function mutateModel(model: ModelProto, random: Random, donor: ModelProto): void {
  const leaf = leafOfModel(random);
  for (let count = 1 + random.below(random.pick([1, 2, 5])); count > 0; count--) {
    if (random.chance(0.1)) changeConstant(model, random);
    else if (random.chance(0.25)) addTo(model, random, donor);
    else mutateTree(model, random, leaf);
  }
}

/** Changes a value that JSON can hold in one to four places. */
export function mutateJson(value: unknown, random: Random): unknown {
  const root = { value };
  for (let count = 1 + random.below(4); count > 0; count--) {
    mutateTree(root, random, ({ holder, key }) => {
      const before = holder[key];
      const choice = random.below(5);
      if (choice === 0)
        return random.pick([null, true, false, [], {}, [[]], { __proto__: null }, -1, 'gate']);
      if (choice === 1) return random.pick(TEXTS);
      if (typeof before === 'number') {
        const whole = Number.isFinite(before) ? Math.trunc(before) : 0;
        return random.chance(0.5) ? random.pick(FLOATS) : Number(integer(random, whole));
      }
      if (typeof before === 'string') {
        const bytes = mutateBytes(new TextEncoder().encode(before), random);
        return new TextDecoder().decode(bytes);
      }
      return random.pick(FLOATS);
    });
    if (random.chance(0.1)) {
      const holder = random.pick(placesOf(root))?.holder;
      if (holder && !Array.isArray(holder))
        holder[random.pick(['extra', 'threshold', 'blocks', ...TEXTS])] = random.below(3);
    }
  }
  return root.value;
}

/** Flips, inserts, removes, repeats or overwrites bytes in one to four places, or truncates them. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  const list = [...bytes];
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.below(list.length + 1);
    const length = 1 + random.below(8);
    const choice = random.below(7);
    if (choice === 0) list[at] = (list[at] ?? 0) ^ (1 << random.below(8));
    else if (choice === 1) list.splice(at, 0, ...Array.from({ length }, () => random.below(256)));
    else if (choice === 2) list.splice(at, length);
    else if (choice === 3) list.splice(at, 0, ...list.slice(at, at + random.below(64)));
    else if (choice === 4) list.fill(random.pick([0, 0x7f, 0x80, 0xff]), at, at + length);
    else if (choice === 5 && random.chance(0.3)) list.length = at;
    else list[at] = random.pick([0, 1, 2, 0x7f, 0x80, 0xff, random.below(256)]);
  }
  return Uint8Array.from(list, (value) => value ?? 0);
}
