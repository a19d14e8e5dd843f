/** What crafted files are made of. */
import {
  decodeModelProto,
  encodeModelProto,
  type FunctionProto,
  type NodeProto,
} from 'lib/model/read/proto.js';
import { range } from 'lib/numeric/shapes.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../helpers/onnx-builder.js';

export type Make = (g: GraphBuilder, x: string) => string;

export const SHAPE = [1, 4, 6, 6];

/** A network with an input `x`; its output is the value that `make` returns. */
export function network(make: Make, shape: readonly (number | string)[] = SHAPE, opset = 17): Uint8Array {
  const graph = new GraphBuilder();
  graph.output(make(graph, graph.input('x', shape)));
  return modelBytes(graph, opset);
}

/** `count` nodes in a row. They may use `weight`, a matrix for `conv`, and `vector`, a number for each channel. */
export function chain(count: number, link: (g: GraphBuilder, y: string, i: number) => string): Uint8Array {
  return network((g, x) => {
    g.constant(ones(4, 4, 3, 3), 'weight');
    g.constant(ones(4, 1, 1), 'vector');
    return range(count).reduce((y, i) => link(g, y, i), x);
  });
}

export const ones = (...shape: number[]) =>
  tensor(new Float32Array(shape.reduce((product, length) => product * length, 1)).fill(1), shape);
export const scalar = (value: number) => tensor(Float32Array.of(value), []);
export const int64 = (value: number) => tensor(BigInt64Array.of(BigInt(value)), []);

/** A constant of many equal elements. */
export const filled = (g: GraphBuilder, ...shape: number[]) =>
  g.node('ConstantOfShape', [g.constant(int64s(...shape))], { value: float32s(0.5) });

/** Adds the greatest element of something large to x. */
export const touched = (g: GraphBuilder, x: string, large: string) =>
  g.node('Add', [x, g.node('ReduceMax', [large], { keepdims: 0 })]);

/** The same for each of `count` large constants. */
export const many = (count: number, large: (g: GraphBuilder, i: number) => string) =>
  network((g, x) => range(count).reduce((y, i) => touched(g, y, large(g, i)), x));

export const conv = (g: GraphBuilder, x: string, weight = 'weight') =>
  g.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });

export function recurrent(op: string, gates: number, length: number | string, direction = 'forward') {
  const directions = direction === 'bidirectional' ? 2 : 1;
  const weights = [3, 4].map((columns) => ones(directions, gates * 4, columns));
  const attributes = { hidden_size: 4, direction };
  return network((g, x) => g.node(op, [x, ...weights.map((w) => g.constant(w))], attributes), [length, 1, 3]);
}

const NODE_IN = (name: string, op: string, from: string) => (g: GraphBuilder) =>
  g.nodes(op, [from], {}, { name })[0]!;

/** `depth` conditionals, each in the branch of another; the innermost has a chain of `length` nodes. */
export function nested(depth: number, length: number): Uint8Array {
  const decide = (g: GraphBuilder, left: number): string => {
    const [then, otherwise] = [new GraphBuilder(`then${left}`), new GraphBuilder(`else${left}`)];
    const inner = (from: string, i: number) => NODE_IN(`deep${i}`, 'Neg', from)(then);
    then.output(left === 1 ? range(length).reduce(inner, 'x') : decide(then, left - 1));
    otherwise.output(NODE_IN(`neg${left}`, 'Neg', 'x')(otherwise));
    const branches = { then_branch: then, else_branch: otherwise };
    return g.nodes('If', ['flag'], branches, { name: `if${left}` })[0]!;
  };
  return network((g, x) => {
    const most = g.node('ReduceMax', [x], { keepdims: 0 });
    g.nodes('Greater', [most, g.constant(scalar(0))], {}, { outputs: ['flag'] });
    return decide(g, depth);
  });
}

const DOMAIN = 'crafted';

/** A network that calls the last of the functions f0, f1, ... with these nodes, which make `b` of `a`. */
export function withFunctions(bodies: readonly NodeProto[][], name = 'c'): Uint8Array {
  const opsetImport = [{ domain: '', version: 18 }];
  const functions = bodies.map((node, level): FunctionProto => {
    return { name: `f${level}`, domain: DOMAIN, input: ['a'], output: ['b'], node, opsetImport };
  });
  const bytes = network((g, x) => g.nodes(`f${bodies.length - 1}`, [x], {}, { domain: DOMAIN, name })[0]!);
  return encodeModelProto({ ...decodeModelProto(bytes), functions });
}

/** `levels` functions: each calls the one before it `calls` times in a row, and the first has the nodes `leaf`. */
export function doubling(levels: number, calls: number, leaf: NodeProto[], name = 'c'): Uint8Array {
  const call = (level: number, i: number): NodeProto => ({
    name: `${name}${i}`,
    opType: `f${level - 1}`,
    domain: DOMAIN,
    input: [i === 0 ? 'a' : `v${i}`],
    output: [i === calls - 1 ? 'b' : `v${i + 1}`],
  });
  const bodies = range(levels).map((level) => (level === 0 ? leaf : range(calls).map((i) => call(level, i))));
  return withFunctions(bodies, name);
}

/** Functions whose body is a conditional that calls the function before it. */
export function conditionalFunctions(levels: number, length: number): Uint8Array {
  const bodies = range(levels).map((level): NodeProto[] => {
    const g = new GraphBuilder();
    if (level === 0) {
      range(length).reduce(
        (from, i) => g.nodes('Neg', [from], {}, { outputs: [i === length - 1 ? 'b' : `n${i}`] })[0]!,
        'a',
      );
      return g.proto.node;
    }
    const [then, otherwise] = [new GraphBuilder('then'), new GraphBuilder('else')];
    then.output(then.nodes(`f${level - 1}`, ['a'], {}, { domain: DOMAIN, name: 't' })[0]!);
    otherwise.output(NODE_IN('e', 'Neg', 'a')(otherwise));
    g.nodes('ReduceMax', ['a'], { keepdims: 0 }, { outputs: ['m'] });
    g.nodes('Cast', ['m'], { to: 9 }, { outputs: ['flag'] });
    g.nodes('If', ['flag'], { then_branch: then, else_branch: otherwise }, { outputs: ['b'] });
    return g.proto.node;
  });
  return withFunctions(bodies);
}
