/**
 * Runners of the benchmark: this package's two backends and the peers. Peers are never dependencies: they are looked
 * up in the given folders, and typed here only as far as they are used.
 */
import { readFile } from 'node:fs/promises';
import { nativeInfo } from '../backends/addon.js';
import { ResidualSkipError } from '../errors.js';
import { InferenceSession } from '../session/session.js';
import { Tensor } from '../tensor/tensor.js';
import { packageVersion } from '../util/version.js';
import { importPeer } from './import-peer.js';
import { type BenchInput, benchInputs, type Runner, type RunnerConfig, type Runtime } from './runner.js';

type Open = (config: RunnerConfig, inputs: BenchInput[]) => Promise<Runtime>;

const RUNTIMES: Record<string, Open> = {
  native: (config, inputs) => openOwn('native', config, inputs),
  reference: (config, inputs) => openOwn('reference', config, inputs),
  'onnxruntime-node': (config, inputs) => openOnnxruntime('onnxruntime-node', config, inputs),
  'onnxruntime-web': (config, inputs) => openOnnxruntime('onnxruntime-web', config, inputs),
};

export const PEERS = ['reference', 'onnxruntime-node', 'onnxruntime-web'] as const;

/** The runtime that `config.runner` names. */
export async function openRuntime(config: RunnerConfig): Promise<Runtime> {
  const open = RUNTIMES[config.runner];
  if (!open) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      `runner '${config.runner}': it is unknown; expected one of ${Object.keys(RUNTIMES).join(', ')}`,
    );
  }
  return open(config, benchInputs(config));
}

async function openOwn(
  backend: 'native' | 'reference',
  config: RunnerConfig,
  inputs: BenchInput[],
): Promise<Runtime> {
  const native = backend === 'native';
  if (native) nativeInfo();
  const feeds = Object.fromEntries(
    inputs.map(({ name, type, data, dims }) => [name, new Tensor(type, data as Float32Array, dims)]),
  );
  const load = async (): Promise<Runner> => {
    const session = await InferenceSession.create(config.model, {
      backend,
      policy: 'full',
      ...(native
        ? { threads: config.threads, isa: config.isa as 'avx2' | undefined, precision: config.precision }
        : {}),
    });
    return {
      version: packageVersion(),
      run: async () => {
        await session.run(feeds);
      },
    };
  };
  return { load };
}

interface Onnxruntime {
  env: { wasm: { numThreads?: number } };
  Tensor: new (type: string, data: unknown, dims: readonly number[]) => unknown;
  InferenceSession: {
    create(model: string | Uint8Array, options: object): Promise<{ run(feeds: object): Promise<object> }>;
  };
}

async function openOnnxruntime(name: string, config: RunnerConfig, inputs: BenchInput[]): Promise<Runtime> {
  const { module: ort, version } = await importPeer<Onnxruntime>(name, config.peerFolders);
  const web = name === 'onnxruntime-web';
  if (web) ort.env.wasm.numThreads = config.threads;
  const feeds = Object.fromEntries(
    inputs.map(({ name: input, type, data, dims }) => [input, new ort.Tensor(type, data, dims)]),
  );
  const load = async (): Promise<Runner> => {
    const session = await ort.InferenceSession.create(web ? await readFile(config.model) : config.model, {
      executionProviders: [web ? 'wasm' : 'cpu'],
      intraOpNumThreads: config.threads,
      interOpNumThreads: 1,
    });
    return {
      version,
      run: async () => {
        await session.run(feeds);
      },
    };
  };
  return { load };
}
