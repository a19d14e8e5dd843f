/**
 * TensorFlow.js (wasm backend) as a peer. It can't read ONNX, so the Program's steps are expressed in its own
 * operations and layout (NHWC), with weights converted once at load.
 */
import { join } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import { type Activation, NONE, type Program, type Step, type StepNamed } from '../model/program/program.js';
import { importPeer } from './import-peer.js';
import type { BenchInput, Runner, RunnerConfig, Runtime } from './runner.js';

/** A tfjs tensor, typed as far as it is used. */
interface TfTensor {
  readonly shape: number[];
  transpose(perm: number[]): TfTensor;
  reshape(shape: readonly number[]): TfTensor;
  data(): Promise<unknown>;
  dispose(): void;
}
type TfOp = (...args: unknown[]) => TfTensor;
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tidy<T>(body: () => T): T;
  tensor(data: unknown, shape: readonly number[]): TfTensor;
  [op: string]: unknown;
}
interface TfWasm {
  setWasmPaths(path: string): void;
  setThreadsCount(count: number): void;
}

/** Its `load` throws UNSUPPORTED_MODEL for a step that has no counterpart here. */
export async function openTfjs(config: RunnerConfig, inputs: BenchInput[]): Promise<Runtime> {
  const { module: tf, version } = await importPeer<Tf>('@tensorflow/tfjs', config.peerFolders);
  const wasm = await importPeer<TfWasm>('@tensorflow/tfjs-backend-wasm', config.peerFolders);
  wasm.module.setWasmPaths(join(wasm.folder, 'dist', '/'));
  wasm.module.setThreadsCount(config.threads);
  await tf.setBackend('wasm');
  await tf.ready();
  return { load: async () => ({ version, run: await loadProgram(tf, config, inputs) }) };
}

async function loadProgram(tf: Tf, config: RunnerConfig, inputs: BenchInput[]): Promise<Runner['run']> {
  const model = await loadModel(config.model);
  const program = compileModel(
    model,
    new Map(
      model.inputs.map(({ name, batched }, i) => {
        const dims = inputs[i]!.dims;
        return [name, { shape: batched ? [1, ...dims.slice(1)] : dims }];
      }),
    ),
  );
  const steps = compileSteps(tf, program);
  const feeds = inputs.map(({ data, dims }) => toNhwc(tf.tensor(data, dims)));
  return async () => {
    const outputs = tf.tidy(() => {
      const values = new Map<number, TfTensor>();
      program.inputs.forEach(({ value }, i) => {
        values.set(value, feeds[i]!);
      });
      for (const step of steps) step(values);
      return program.outputs.map(({ value }) => values.get(value)!);
    });
    await Promise.all(outputs.map((output) => output.data()));
    for (const output of outputs) output.dispose();
  };
}

function toNhwc(tensor: TfTensor): TfTensor {
  return tensor.shape.length === 4 ? tensor.transpose([0, 2, 3, 1]) : tensor;
}

type Compiled = (values: Map<number, TfTensor>) => void;

function compileSteps(tf: Tf, program: Program): Compiled[] {
  const constant = (id: number) => {
    const { data, shape } = program.values[id]!;
    return data ? tf.tensor(data, shape) : undefined;
  };
  return program.steps.map((step) => {
    const body = compileStep(tf, step, program, constant);
    return (values) => {
      values.set(
        step.outputs[0]!,
        body((i) => values.get(step.inputs[i]!)!),
      );
    };
  });
}

type Get = (input: number) => TfTensor;

function compileStep(
  tf: Tf,
  step: Step,
  program: Program,
  constant: (id: number) => TfTensor | undefined,
): (get: Get) => TfTensor {
  const op = (name: string) => tf[name] as TfOp;
  const shapeOf = (id: number) => program.values[id]!.shape;
  switch (step.op) {
    case 'conv':
      return compileConv(tf, step, program, constant);
    case 'gemm': {
      const b = constant(step.inputs[1]!)!;
      const c = step.inputs[2] === NONE ? undefined : constant(step.inputs[2]!)!;
      return (get) => {
        const product = op('matMul')(get(0), b, false, step.attrs.transB);
        return activate(tf, c ? op('add')(product, c) : product, step.attrs.act);
      };
    }
    case 'binary': {
      const fixed = step.inputs.map((id) => {
        const value = constant(id);
        return value && toNhwc(value);
      });
      return (get) => {
        const [a, b] = [fixed[0] ?? get(0), fixed[1] ?? get(1)];
        return activate(tf, op(step.attrs.kind)(a, b), step.attrs.act);
      };
    }
    case 'unary':
      return (get) => activate(tf, get(0), step.attrs.act);
    case 'affine': {
      const [scale, shift] = [constant(step.inputs[1]!)!, constant(step.inputs[2]!)!];
      return (get) => activate(tf, op('add')(op('mul')(get(0), scale), shift), step.attrs.act);
    }
    case 'globalPool': {
      const keep = shapeOf(step.outputs[0]!).length === 4;
      const { kind } = step.attrs;
      if (kind === 'meanSquare') break;
      return (get) => op(kind === 'avg' ? 'mean' : 'max')(get(0), [1, 2], keep);
    }
    case 'reshape': {
      const [from, to] = [shapeOf(step.inputs[0]!), shapeOf(step.outputs[0]!)];
      if (from.length === 4 && (from[2]! * from[3]! > 1 || to.length === 4)) break;
      return (get) => get(0).reshape([get(0).shape[0]!, ...to.slice(1)]);
    }
    case 'pool': {
      const { kind, kernel, strides, pads } = step.attrs;
      const padded = pads.some((p) => p > 0);
      if (kind === 'avg' && padded) break;
      return (get) => {
        const x = padded ? op('pad')(get(0), padding(pads), Number.NEGATIVE_INFINITY) : get(0);
        return op(kind === 'max' ? 'maxPool' : 'avgPool')(x, kernel, strides, 'valid');
      };
    }
    default:
  }
  throw new ResidualSkipError(
    'UNSUPPORTED_MODEL',
    `peer 'tfjs': it has no counterpart of the step '${step.op}'`,
  );
}

function padding([top = 0, left = 0, bottom = 0, right = 0]: readonly number[]): number[][] {
  return [
    [0, 0],
    [top, bottom],
    [left, right],
    [0, 0],
  ];
}

function compileConv(
  tf: Tf,
  step: StepNamed<'conv'>,
  program: Program,
  constant: (id: number) => TfTensor | undefined,
): (get: Get) => TfTensor {
  const { strides, pads, dilations, group, act } = step.attrs;
  const [x, w, b, residual] = step.inputs as [number, number, number, number];
  const channels = program.values[x]!.shape[1]!;
  const depthwise = group === channels && program.values[w]!.shape[0] === channels;
  if ((group !== 1 && !depthwise) || pads.length !== 4) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      `peer 'tfjs': it has no grouped or ${pads.length / 2}-d convolution`,
    );
  }
  // OIHW to HWIO, or to HWC1 for a depthwise one.
  const weight = constant(w)!.transpose(depthwise ? [2, 3, 0, 1] : [2, 3, 1, 0]);
  const bias = b === NONE ? undefined : constant(b)!;
  const conv = tf[depthwise ? 'depthwiseConv2d' : 'conv2d'] as TfOp;
  const add = tf.add as TfOp;
  const edges = padding(pads);
  return (get) => {
    let y = conv(get(0), weight, strides, edges, 'NHWC', dilations);
    if (bias) y = add(y, bias);
    if (residual !== NONE) y = add(y, get(3));
    return activate(tf, y, act);
  };
}

function activate(tf: Tf, x: TfTensor, act: Activation): TfTensor {
  const op = (name: string) => tf[name] as TfOp;
  switch (act.kind) {
    case 'none':
      return x;
    case 'relu':
    case 'sigmoid':
    case 'tanh':
      return op(act.kind)(x);
    case 'clip':
      return op('clipByValue')(x, act.alpha, act.beta);
    case 'silu':
      return op('mul')(x, op('sigmoid')(x));
    default:
      throw new ResidualSkipError('UNSUPPORTED_MODEL', `peer 'tfjs': it has no activation '${act.kind}'`);
  }
}
