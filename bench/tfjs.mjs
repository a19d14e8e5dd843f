// TensorFlow.js (wasm backend) beside this package, and any of the other peers, on one thread. It can't read ONNX, so the steps of
// the compiled program are expressed in its own operations and layout (NHWC), with weights converted once at load. First install
// the peers (cd bench && npm ci --ignore-scripts).
//   node bench/tfjs.mjs MODEL [--peers onnxruntime-node,...] [--rounds N]     prints the JSON of `residual-skip bench --json`
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { nativeInfo } from '../dist/backends/addon.js';
import { findModel } from '../dist/data/model-files.js';
import { inputShapes } from '../dist/inspect/shapes.js';
import { runBench } from '../dist/measure/bench.js';
import { importPeer } from '../dist/measure/import-peer.js';
import { openRuntime } from '../dist/measure/peers.js';
import { benchInputs } from '../dist/measure/runner.js';
import { serveBenchWorker } from '../dist/measure/worker.js';
import { compileModel } from '../dist/model/compile.js';
import { loadModel } from '../dist/model/load.js';
import { NONE } from '../dist/model/program/program.js';

const RUNNER = 'tfjs-wasm';

async function openTfjs(config) {
  const { module: tf, version } = await importPeer('@tensorflow/tfjs', config.peerFolders);
  const wasm = await importPeer('@tensorflow/tfjs-backend-wasm', config.peerFolders);
  wasm.module.setWasmPaths(join(wasm.folder, 'dist', '/'));
  wasm.module.setThreadsCount(config.threads);
  await tf.setBackend('wasm');
  await tf.ready();
  return { load: async () => ({ version, run: await loadProgram(tf, config, benchInputs(config)) }) };
}

async function loadProgram(tf, config, inputs) {
  const model = await loadModel(config.model);
  const shapes = model.inputs.map(({ name, batched }, i) => {
    const { dims } = inputs[i];
    return [name, { shape: batched ? [1, ...dims.slice(1)] : dims }];
  });
  const program = compileModel(model, new Map(shapes));
  const steps = compileSteps(tf, program);
  const feeds = inputs.map(({ data, dims }) => toNhwc(tf.tensor(data, dims)));
  return async () => {
    const outputs = tf.tidy(() => {
      const values = new Map(program.inputs.map(({ value }, i) => [value, feeds[i]]));
      for (const step of steps) step(values);
      return program.outputs.map(({ value }) => values.get(value));
    });
    await Promise.all(outputs.map((output) => output.data()));
    for (const output of outputs) output.dispose();
  };
}

function toNhwc(tensor) {
  return tensor.shape.length === 4 ? tensor.transpose([0, 2, 3, 1]) : tensor;
}

function compileSteps(tf, program) {
  const constant = (id) => {
    const { data, shape } = program.values[id];
    return data ? tf.tensor(data, shape) : undefined;
  };
  return program.steps.map((step) => {
    const body = compileStep(tf, step, program, constant);
    return (values) => {
      values.set(
        step.outputs[0],
        body((i) => values.get(step.inputs[i])),
      );
    };
  });
}

/** What a step computes of its inputs, `get(i)`. */
function compileStep(tf, step, program, constant) {
  const op = (name) => tf[name];
  const shapeOf = (id) => program.values[id].shape;
  switch (step.op) {
    case 'conv':
      return compileConv(tf, step, program, constant);
    case 'gemm': {
      const b = constant(step.inputs[1]);
      const c = step.inputs[2] === NONE ? undefined : constant(step.inputs[2]);
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
      const [scale, shift] = [constant(step.inputs[1]), constant(step.inputs[2])];
      return (get) => activate(tf, op('add')(op('mul')(get(0), scale), shift), step.attrs.act);
    }
    case 'globalPool': {
      const keep = shapeOf(step.outputs[0]).length === 4;
      const { kind } = step.attrs;
      if (kind === 'meanSquare') break;
      return (get) => op(kind === 'avg' ? 'mean' : 'max')(get(0), [1, 2], keep);
    }
    case 'reshape': {
      const [from, to] = [shapeOf(step.inputs[0]), shapeOf(step.outputs[0])];
      if (from.length === 4 && (from[2] * from[3] > 1 || to.length === 4)) break;
      return (get) => get(0).reshape([get(0).shape[0], ...to.slice(1)]);
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
  throw new Error(`tfjs has no counterpart of the step '${step.op}'`);
}

function padding([top = 0, left = 0, bottom = 0, right = 0]) {
  return [
    [0, 0],
    [top, bottom],
    [left, right],
    [0, 0],
  ];
}

function compileConv(tf, step, program, constant) {
  const { strides, pads, dilations, group, act } = step.attrs;
  const [x, w, b, residual] = step.inputs;
  const channels = program.values[x].shape[1];
  const depthwise = group === channels && program.values[w].shape[0] === channels;
  if ((group !== 1 && !depthwise) || pads.length !== 4) {
    throw new Error(`tfjs has no grouped or ${pads.length / 2}-d convolution`);
  }
  // OIHW to HWIO, or to HWC1 for a depthwise one.
  const weight = constant(w).transpose(depthwise ? [2, 3, 0, 1] : [2, 3, 1, 0]);
  const bias = b === NONE ? undefined : constant(b);
  const conv = tf[depthwise ? 'depthwiseConv2d' : 'conv2d'];
  const add = tf.add;
  const edges = padding(pads);
  return (get) => {
    let y = conv(get(0), weight, strides, edges, 'NHWC', dilations);
    if (bias) y = add(y, bias);
    if (residual !== NONE) y = add(y, get(3));
    return activate(tf, y, act);
  };
}

function activate(tf, x, act) {
  const op = (name) => tf[name];
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
      throw new Error(`tfjs has no activation '${act.kind}'`);
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { peers: { type: 'string', default: '' }, rounds: { type: 'string', default: '40' } },
  });
  if (positionals.length !== 1) {
    console.error('Usage: node bench/tfjs.mjs MODEL [--peers NAMES] [--rounds N]');
    process.exit(2);
  }
  const files = await findModel(positionals[0]);
  const model = await loadModel(files.model);
  const shapes = await inputShapes(model, files, new Map());
  const { best: isa, peakGflops } = nativeInfo();
  const report = await runBench({
    worker: { script: process.argv[1], args: ['worker'] },
    model: files.model,
    batch: 1,
    threads: 1,
    isa,
    inputs: [...shapes].map(([name, { dtype, dims }]) => ({ name, type: dtype, dims })),
    runners: ['native', ...values.peers.split(',').filter(Boolean), RUNNER],
    peerFolders: [process.cwd(), dirname(files.model), import.meta.dirname],
    peakGflops: peakGflops(isa),
    rounds: Number(values.rounds),
  });
  console.log(JSON.stringify(report, null, 2));
}

const open = (config) => (config.runner === RUNNER ? openTfjs(config) : openRuntime(config));
if (process.argv[2] === 'worker') serveBenchWorker(open);
else await main();
