/** Pools of quantised maps with float results, which heads read: sums and maxima of bytes. */
import { sizeOf } from '../../numeric/shapes.js';
import { NO_REQUANTISATION } from '../program/program.js';
import { uniformly } from './quantised-value.js';
import type { Region, WorkStep, WorkStepNamed } from './region.js';

/** Replaces a pool of dequantised numbers by one of their bytes. */
export function floatPool(region: Region, step: WorkStep): boolean {
  if ((step.op !== 'globalPool' && step.op !== 'pool') || step.outputs.length !== 1) return false;
  if (step.attrs.kind === 'meanSquare') return false;
  if (step.attrs.kind === 'max') return maxima(region, step);
  return step.op === 'pool' ? averages(region, step) : mean(region, step);
}

function mean(region: Region, { node, inputs, outputs }: WorkStepNamed<'globalPool'>): boolean {
  const x = uniformly(region, inputs[0]!);
  if (!x) return false;
  const size = sizeOf(region.shape(x.bytes).slice(2));
  const terms = [{ zero: x.term.zero, factor: x.term.factor / size }] as const;
  const attrs = { terms, requant: NO_REQUANTISATION };
  region.replace(
    [region.producer(outputs[0]!)!],
    [{ op: 'qglobalPool', node, inputs: [x.bytes], outputs, attrs }],
  );
  return true;
}

/** Only where all windows have the same number of cells. */
function averages(region: Region, step: WorkStepNamed<'pool'>): boolean {
  const x = uniformly(region, step.inputs[0]!);
  const { kernel, strides, pads, dilations, countIncludePad } = step.attrs;
  const [from, to] = [step.inputs[0]!, step.outputs[0]!].map((id) => region.shape(id).slice(2));
  const last = to!.map((length, d) => (length - 1) * strides[d]! + (kernel[d]! - 1) * dilations[d]!);
  const inside = pads.every((pad) => pad === 0) && last.every((end, d) => end < from![d]!);
  if (!x || !(countIncludePad || inside)) return false;
  const terms = [{ zero: x.term.zero, factor: x.term.factor / sizeOf(kernel) }] as const;
  const attrs = { kernel, strides, pads, dilations, squares: false, terms };
  const { node, outputs } = step;
  region.replace([step], [{ op: 'qpool', node, inputs: [x.bytes], outputs, attrs }]);
  return true;
}

/** The largest byte represents the largest number. */
function maxima(region: Region, step: WorkStepNamed<'globalPool' | 'pool'>): boolean {
  const back = region.producerOf(step.inputs[0]!, 'dequantize');
  const x = uniformly(region, step.inputs[0]!);
  const y = region.value(step.outputs[0]!);
  if (!back || !x) return false;
  const { node, outputs } = step;
  const spatial = region.shape(x.bytes).slice(2);
  const attrs =
    step.op === 'pool'
      ? step.attrs
      : {
          kind: 'max' as const,
          kernel: spatial,
          strides: spatial.map(() => 1),
          pads: [...spatial, ...spatial].map(() => 0),
          dilations: spatial.map(() => 1),
          countIncludePad: false,
          columnMajorIndices: false,
        };
  const shape = step.op === 'pool' ? y.shape : [...y.shape.slice(0, 2), ...spatial.map(() => 1)];
  const bytes = region.addValue(`${y.name}.bytes`, x.dtype, shape);
  const flat = region.addValue(`${y.name}.most`, x.dtype, y.shape);
  region.replace(
    [step],
    [
      { op: 'pool', node, inputs: [x.bytes], outputs: [bytes], attrs },
      { op: 'reshape', node, inputs: [bytes], outputs: [flat], attrs: {} },
      { ...back, node, inputs: [flat, ...back.inputs.slice(1)], outputs },
    ],
  );
  return true;
}
