import type { Activation } from './operations.js';

// Looked up once: a global is slow to reach from code that runs inside a vm context.
const { exp, max, min, tanh } = Math;

/** y[i] = act(x[i]) for i in [0, count); `y` may be `x`. NaN propagates. */
export function activate(x: Float32Array, y: Float32Array, count: number, act: Activation): void {
  const { alpha, beta } = act;
  switch (act.kind) {
    case 'none':
      if (x !== y) for (let i = 0; i < count; i++) y[i] = x[i]!;
      return;
    case 'relu':
      relu(x, y, count);
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
      for (let i = 0; i < count; i++) y[i] = 1 / (1 + exp(-x[i]!));
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
        y[i] = v * (1 / (1 + exp(-v)));
      }
      return;
    case 'tanh':
      for (let i = 0; i < count; i++) y[i] = tanh(x[i]!);
      return;
  }
}

/** On the bits of the numbers, without a branch: signs are hard to predict, and mispredictions cost more than the rest. */
function relu(x: Float32Array, y: Float32Array, count: number): void {
  const from = new Int32Array(x.buffer, x.byteOffset, count);
  const to = new Int32Array(y.buffer, y.byteOffset, count);
  for (let i = 0; i < count; i++) {
    const bits = from[i]!;
    const isNumber = ((bits & 0x7fffffff) - 0x7f800001) >> 31;
    to[i] = bits & ~((bits >> 31) & isNumber);
  }
}

/** NaN is kept. */
function clamp(v: number, low: number, high: number): number {
  return min(max(v, low), high);
}
