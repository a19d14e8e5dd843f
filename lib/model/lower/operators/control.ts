import { sameShape, sizeOf } from '../../../numeric/shapes.js';
import type { IrBranch } from '../../program/ir.js';
import type { ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import type { OperatorTable } from './operator.js';

/**
 * If the condition is constant, only the branch that it takes remains. ONNX has one condition for a whole batch; where the graph makes one
 * for each item, each takes its own branch (`batch-walk.ts`).
 */
function conditional(node: NodeLowering): readonly ValueId[] {
  const condition = node.input(0);
  const { dtype, shape, data } = node.value(condition);
  const { items } = node.context;
  if (dtype !== 'bool' || ![1, items].includes(sizeOf(shape))) {
    node.invalid(`its condition is ${dtype}[${shape}]; expected one bool`);
  }
  const branch = (name: 'then_branch' | 'else_branch') =>
    node.context.lowerBranch(node.graph(name), node.scope);
  if (data?.length === 1) return node.inline(branch(data[0] ? 'then_branch' : 'else_branch'));
  const branches = { then: branch('then_branch'), else: branch('else_branch') };
  checkOutputs(node, branches);
  return node.conditional(condition, branches);
}

function checkOutputs(node: NodeLowering, branches: { then: IrBranch; else: IrBranch }): void {
  const count = branches.then.outputs.length;
  if (count !== branches.else.outputs.length || node.node.outputs.length > count) {
    node.invalid('its branches differ in their number of outputs');
  }
  for (const [i, id] of branches.then.outputs.entries()) {
    const [a, b] = [node.value(id), node.value(branches.else.outputs[i]!)];
    if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) {
      node.unsupported(
        `output ${i} is ${a.dtype}[${a.shape}] in one branch and ${b.dtype}[${b.shape}] in the other`,
      );
    }
  }
}

export const CONTROL: OperatorTable = { If: { lower: conditional, choosingInputs: [0] } };
