/**
 * Proves that all lengths in a lowered graph depend linearly on its open one, so that programs of the graph can be interpolated.
 *
 * The proof follows the nodes, beside their lowerings for some lengths. If the operands of a node don't depend on the open length,
 * its results don't, either. Other operands need a rule of the operator: it only copies, adds and multiplies lengths, or it compares
 * linear numbers, and two lengths with the same outcome have it between them, too. What rounds has no rule, such as strides, `Resize`
 * and integer division, nor has an operator that isn't listed: programs of such graphs are compiled.
 */

import {
  type Kind,
  LENGTH_RULES,
  type OutlinedValue,
  SampledNode,
  type Samples,
  transposed,
  varies,
} from './length-rules.js';
import type { LoweredIr } from './program/ir.js';
import type { ValueId } from './program/program.js';
import { type Graph, type Node, subgraphsOf } from './read/graph.js';

/** What the proof reads of a graph that was lowered for one length. */
export interface Outline {
  readonly length: number;
  readonly values: readonly OutlinedValue[];
  /** For each node, the first of the values that it made. */
  readonly firsts: readonly ValueId[];
  readonly idOf: (name: string) => ValueId | undefined;
}

/** A longer constant isn't a list of lengths. */
const MAX_LENGTHS = 64;

export function outlineOf({ values, scope, firsts }: LoweredIr, length: number): Outline {
  const outlined = values.map(({ dtype, shape, data }): OutlinedValue => {
    const listed = (dtype === 'int64' || dtype === 'int32') && data && data.length <= MAX_LENGTHS;
    const integers = listed ? Array.from(data as Iterable<number | bigint>, Number) : undefined;
    return { shape, isConstant: data !== undefined, integers };
  });
  return { length, values: outlined, firsts, idOf: (name) => scope.get(name) };
}

/**
 * Whether the length of every axis is linear between the lengths of the first outline and the last one, and every constant of an open
 * shape has the elements of a longer one at the same positions.
 */
export function isLinear({ nodes }: Graph, outlines: readonly Outline[]): boolean {
  const [first] = outlines as [Outline];
  const names = nodes.flatMap(({ outputs }) => outputs.filter((name) => name !== ''));
  const alike = outlines.every(
    ({ values, firsts, idOf }) =>
      values.length === first.values.length &&
      firsts.every((id, i) => id === first.firsts[i]) &&
      names.every((name) => idOf(name) === first.idOf(name)),
  );
  return alike && new Proof(outlines).covers(nodes);
}

class Proof {
  private readonly kinds: Kind[] = [];

  constructor(private readonly outlines: readonly Outline[]) {}

  covers(nodes: readonly Node[]): boolean {
    const { firsts, values } = this.outlines[0]!;
    const startOf = (node: number) => firsts[node] ?? values.length;
    // Inputs, and constants of the file.
    if (!this.addUpTo(startOf(0), 'fixed')) return false;
    return nodes.every((node, i) => {
      const kind = this.kindMadeBy(node);
      return kind !== undefined && this.addUpTo(startOf(i + 1), kind);
    });
  }

  private kindMadeBy(node: Node): Kind | undefined {
    // Subgraphs see more values than the node's inputs.
    if (subgraphsOf(node).length > 0) return undefined;
    const ids = node.inputs.map((name) => this.idOf(name));
    const kinds = ids.map((id) => (id === undefined ? undefined : this.kinds[id]));
    if (kinds.every((kind) => (kind ?? 'fixed') === 'fixed')) return 'fixed';
    const operands = ids.map((id) => (id === undefined ? undefined : this.samplesOf(id)));
    const output = this.samplesOf(this.idOf(node.outputs.find((name) => name !== '')!)!);
    return LENGTH_RULES[node.op]?.(new SampledNode(node, operands, kinds, output));
  }

  private idOf(name: string): ValueId | undefined {
    return name === '' ? undefined : this.outlines[0]!.idOf(name);
  }

  private samplesOf(id: ValueId): OutlinedValue[] {
    return this.outlines.map(({ values }) => values[id]!);
  }

  /** Adds the values before `end`; constants among them have the kind `made`. False when a number isn't linear. */
  private addUpTo(end: ValueId, made: Kind): boolean {
    for (let id = this.kinds.length; id < end; id++) {
      const kind = this.kindOf(this.samplesOf(id), made);
      if (!kind) return false;
      this.kinds.push(kind);
    }
    return true;
  }

  private kindOf(samples: readonly OutlinedValue[], made: Kind): Kind | undefined {
    const [{ shape, isConstant }] = samples as [OutlinedValue];
    const alike = samples.every(
      (value) => value.shape.length === shape.length && value.isConstant === isConstant,
    );
    const axes = alike ? transposed(samples.map((value) => value.shape)) : [];
    if (!alike || !axes.every((lengths) => this.isLinear(lengths))) return undefined;
    const isOpen = axes.some(varies);
    if (!isConstant) return isOpen ? 'open' : 'fixed';
    if (made === 'grows') return isOpen ? 'grows' : 'fixed';
    if (isOpen || made === 'fixed') return isOpen ? undefined : 'fixed';
    const lists = samples.flatMap(({ integers }) => (integers ? [integers] : []));
    const numbers = lists.length === samples.length ? transposed(lists) : undefined;
    if (!numbers?.every((list) => this.isLinear(list))) return undefined;
    return numbers.some(varies) ? 'lengths' : 'fixed';
  }

  /** Numbers that depend on the length are positive and grow. */
  private isLinear(samples: Samples): boolean {
    if (!varies(samples)) return true;
    const lengths = this.outlines.map(({ length }) => length);
    const [[a, b], [p, q]] = [lengths, samples] as unknown as [[number, number], [number, number]];
    const onLine = samples.every((number, i) => (number - p) * (b - a) === (q - p) * (lengths[i]! - a));
    return onLine && p > 0 && q > p;
  }
}
