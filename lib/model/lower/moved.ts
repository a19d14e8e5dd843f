import type { NodeLowering } from './lowering.js';

/** Attributes that became inputs, and the opset since which they are. Ignored, they would change what the operator computes. */
const MOVED: Readonly<Record<string, readonly [since: number, ...names: string[]]>> = {
  Clip: [11, 'min', 'max'],
  Pad: [11, 'pads', 'value'],
  Slice: [10, 'starts', 'ends', 'axes'],
  Split: [13, 'split'],
  Squeeze: [13, 'axes'],
  TopK: [10, 'k'],
  Unsqueeze: [13, 'axes'],
  Upsample: [9, 'scales'],
  ReduceSum: [13, 'axes'],
  ReduceL1: [18, 'axes'],
  ReduceL2: [18, 'axes'],
  ReduceLogSum: [18, 'axes'],
  ReduceLogSumExp: [18, 'axes'],
  ReduceMax: [18, 'axes'],
  ReduceMean: [18, 'axes'],
  ReduceMin: [18, 'axes'],
  ReduceProd: [18, 'axes'],
  ReduceSumSquare: [18, 'axes'],
};

/**
 * A node that is written as another opset has it.
 * @throws ResidualSkipError MODEL_INVALID
 */
export function requireOwnOpset(node: NodeLowering): void {
  const { op, attributes, inputs } = node.node;
  const moved = Object.hasOwn(MOVED, op) ? MOVED[op] : undefined;
  if (!moved) return;
  const [since, ...names] = moved;
  const wayOut = `export the model again, or correct the opset that it declares`;
  if (node.opset < since && inputs.length > 1) {
    node.invalid(
      `in opset ${node.opset} its ${names.map((name) => `'${name}'`).join(' and ')} are attributes, not inputs as from ${since} on; ${wayOut}`,
    );
  }
  const old = node.opset < since ? undefined : names.find((name) => attributes.has(name));
  if (old)
    node.invalid(
      `in opset ${node.opset} its '${old}' is an input, not an attribute as before ${since}; ${wayOut}`,
    );
}
