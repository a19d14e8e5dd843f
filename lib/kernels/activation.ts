import type { Activation, ActivationKind } from './operations.js';

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
    default: {
      const of = FUNCTIONS[act.kind];
      for (let i = 0; i < count; i++) y[i] = of(x[i]!, alpha, beta);
    }
  }
}

type Written =
  | 'none'
  | 'relu'
  | 'leakyRelu'
  | 'clip'
  | 'sigmoid'
  | 'hardSigmoid'
  | 'hardSwish'
  | 'silu'
  | 'tanh';

/** Those that few networks have: a call for each element. */
const FUNCTIONS: Record<
  Exclude<ActivationKind, Written>,
  (x: number, alpha: number, beta: number) => number
> = {
  erf,
  // At -Infinity its limit, where the formula is infinity times zero.
  gelu: (x) => (x === Number.NEGATIVE_INFINITY ? 0 : (x * (1 + erf(x * Math.SQRT1_2))) / 2),
  geluTanh: (x) => x / (1 + exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  elu,
  selu: (x, alpha, beta) => beta * elu(x, alpha),
  celu: (x, alpha) => (x < 0 ? alpha * Math.expm1(x / alpha) : x),
  softplus,
  softsign: (x) => x / (1 + Math.abs(x)),
  mish: (x) => x * tanh(softplus(x)),
  exp,
  log: Math.log,
  sqrt: Math.sqrt,
  reciprocal: (x) => 1 / x,
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  ceil: Math.ceil,
  round: (x) => {
    const below = Math.floor(x);
    const rest = x - below;
    return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
  },
  sin: (x) => Math.sin(limited(x)),
  cos: (x) => Math.cos(limited(x)),
};

/** Beyond 2^20, float32 hardly resolves a period. */
function limited(x: number): number {
  return Number.isFinite(x) ? clamp(x, -(2 ** 20), 2 ** 20) : Number.NaN;
}

function elu(x: number, alpha: number): number {
  return x < 0 ? alpha * Math.expm1(x) : x;
}

function softplus(x: number): number {
  return max(x, 0) + Math.log1p(exp(-Math.abs(x)));
}

/** By the series 2/sqrt(pi) * e^-x^2 * sum of 2^n x^(2n+1) / (2n+1)!!, whose terms don't cancel. */
function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Math.sign(x);
  let sum = 0;
  let term = x;
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 2 ** -54; n++) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * exp(-x * x) * sum;
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
