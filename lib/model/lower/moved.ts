import type { NodeLowering } from './lowering.js';

/** Attributes that became inputs, and the opset in which they did. Ignored, they would change what the operator computes. */
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
 * Refuses a node that is written as another opset has it.
 * @throws ResidualSkipError MODEL_INVALID
 */
export function requireOwnOpset(node: NodeLowering): void {
  const { op, attributes, inputs } = node.node;
  if (!Object.hasOwn(MOVED, op)) return;
  const [since, ...names] = MOVED[op]!;
  if (node.opset >= since) {
    const old = names.find((name) => attributes.has(name));
    if (old) invalid(node, `its '${old}' is an input, not an attribute as before ${since}`);
  } else if (inputs.length > 1) {
    const all = names.map((name) => `'${name}'`).join(' and ');
    invalid(node, `its ${all} are attributes, not inputs as from ${since} on`);
  }
}

function invalid(node: NodeLowering, problem: string): never {
  return node.invalid(
    `in opset ${node.opset} ${problem}; export the model again, or correct the opset that it declares`,
  );
}
