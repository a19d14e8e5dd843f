import type { Region } from './region.js';

/** Whether a region computes with bytes that stand for numbers: most networks don't, and nothing that rewrites those loads. */
export function holdsQuantised(region: Region): boolean {
  return region.ops.some(
    (op) =>
      op.op === 'quantize' ||
      op.op === 'dequantize' ||
      (op.op === 'if' && (holdsQuantised(op.whenTrue) || holdsQuantised(op.whenFalse))),
  );
}
