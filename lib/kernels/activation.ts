import type { Activation } from '../model/program.js';

/** y[i] = act(x[i]) for i in [0, count); `y` may be `x`. NaN propagates. */
export function activate(x: Float32Array, y: Float32Array, count: number, act: Activation): void {
  const { alpha, beta } = act;
  switch (act.kind) {
    case 'none':
      if (x !== y) for (let i = 0; i < count; i++) y[i] = x[i]!;
      return;
    case 'relu':
      for (let i = 0; i < count; i++) y[i] = Math.max(x[i]!, 0);
      return;
    case 'leakyRelu':
      for (let i = 0; i < count; i++) {
        const v = x[i]!;
        y[i] = v < 0 ? alpha * v : v;
      }
      return;
    case 'clip':
      for (let i = 0; i < count; i++) y[i] = clamp(x[i]!, alpha, beta);
      return;
    case 'sigmoid':
      for (let i = 0; i < count; i++) y[i] = 1 / (1 + Math.exp(-x[i]!));
      return;
    case 'hardSigmoid':
      for (let i = 0; i < count; i++) y[i] = clamp(alpha * x[i]! + beta, 0, 1);
      return;
    case 'hardSwish':
      for (let i = 0; i < count; i++) {
        const v = x[i]!;
        y[i] = v * clamp(v / 6 + 0.5, 0, 1);
      }
      return;
    case 'silu':
      for (let i = 0; i < count; i++) {
        const v = x[i]!;
        y[i] = v * (1 / (1 + Math.exp(-v)));
      }
      return;
    case 'tanh':
      for (let i = 0; i < count; i++) y[i] = Math.tanh(x[i]!);
      return;
  }
}

/** NaN is kept. */
function clamp(v: number, low: number, high: number): number {
  return Math.min(Math.max(v, low), high);
}
