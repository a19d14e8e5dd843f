import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { credentials, loadPackageDefinition, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { InferenceSession, Tensor } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';

const MODEL = 'cifar10-resnet14-exits';
const FOLDER = resolve('models', MODEL);
const { promise } = JSON.parse(readFileSync(resolve(FOLDER, 'policy.json'), 'utf8'));

type Call = (
  request: object,
  metadata: Metadata,
  done: (error: ServiceError | null, answer: never) => void,
) => void;
type Stub = Readonly<Record<string, Call>> & { close(): void };

let server: RunningServer;
let stub: Stub;
beforeAll(async () => {
  server = await createServer({ folders: [FOLDER], port: 0, grpcPort: 0 });
  const { inference } = loadPackageDefinition(
    loadSync(resolve('server/proto/open_inference.proto'), { keepCase: true, longs: String, defaults: true }),
  ) as never as {
    inference: { GRPCInferenceService: new (address: string, how: object) => Stub };
  };
  stub = new inference.GRPCInferenceService(server.grpcAddress!, credentials.createInsecure());
});
afterAll(async () => {
  stub.close();
  await server.close();
});

/** A unary call as a promise. */
const call = <T = Record<string, never>>(method: string, request: object = {}): Promise<T> =>
  new Promise((resolve, reject) =>
    stub[method]!.call(stub, request, new Metadata(), (error, answer) =>
      error ? reject(error) : resolve(answer as T),
    ),
  );

interface Answer {
  readonly outputs: readonly { readonly datatype: string; readonly shape: readonly string[] }[];
  readonly raw_output_contents: readonly Buffer[];
  readonly parameters: Readonly<Record<string, object>>;
}

const pixels = Float32Array.from({ length: 3072 }, (_, i) => Math.cos(i));
const shape = [1, 3, 32, 32];

test('health and metadata', async () => {
  expect(await call('ServerLive')).toEqual({ live: true });
  expect(await call('ServerReady')).toEqual({ ready: true });
  expect(await call('ModelReady', { name: MODEL })).toEqual({ ready: true });
  expect(await call('ServerMetadata')).toMatchObject({ name: 'residual-skip' });
  expect(await call('ModelMetadata', { name: MODEL })).toMatchObject({
    name: MODEL,
    versions: ['1'],
    inputs: [{ name: 'input', datatype: 'FP32', shape: ['-1', '3', '32', '32'] }],
    parameters: {
      policy: { string_param: String(promise.limit) },
      promise_limit: { double_param: promise.limit },
      promise_confidence: { double_param: promise.confidence },
      promise_metric: { string_param: promise.metric },
    },
  });
});

test('tensors, raw and typed, have the answers of a session', async () => {
  const session = await InferenceSession.create(FOLDER);
  const { logits } = await session.run({ input: new Tensor('float32', pixels, shape) });
  await session.release();
  const expected = Buffer.from(logits!.data.buffer as ArrayBuffer);
  const input = { name: 'input', datatype: 'FP32', shape };
  const raw = await call<Answer>('ModelInfer', {
    model_name: MODEL,
    inputs: [input],
    raw_input_contents: [Buffer.from(pixels.buffer)],
  });
  const typed = await call<Answer>('ModelInfer', {
    model_name: MODEL,
    inputs: [{ ...input, contents: { fp32_contents: [...pixels] } }],
    parameters: { trace: { bool_param: true } },
  });
  for (const answer of [raw, typed]) {
    expect(answer.outputs).toMatchObject([{ datatype: 'FP32', shape: ['1', '10'] }]);
    expect(answer.raw_output_contents[0]).toEqual(expected);
  }
  expect(typed.parameters.trace).toMatchObject({ string_param: expect.stringContaining('blocks') });
});

test('images in, classes out', async () => {
  const answer = await call<Answer>('ModelInfer', {
    model_name: MODEL,
    inputs: [
      {
        name: 'input',
        datatype: 'BYTES',
        shape: [1],
        contents: { bytes_contents: [readFileSync(resolve('examples/images/cat-0000.jpg'))] },
      },
    ],
    outputs: [{ name: 'logits', parameters: { classification: { int64_param: 2 } } }],
  });
  expect(answer.outputs).toMatchObject([{ datatype: 'BYTES', shape: ['1', '2'] }]);
  expect(answer.raw_output_contents[0]!.subarray(4).toString()).toMatch(/^[-\d.]+:\d:[a-z]+/);
});

test('statistics, index, unload and load', async () => {
  const { model_stats } = await call<{ model_stats: { inference_count: string }[] }>('ModelStatistics', {
    name: MODEL,
  });
  expect(Number(model_stats[0]!.inference_count)).toBeGreaterThan(0);
  await call('RepositoryModelUnload', { model_name: MODEL });
  expect(await call('ModelReady', { name: MODEL })).toEqual({ ready: false });
  expect(await call('RepositoryIndex', { ready: true })).toEqual({ models: [] });
  await call('RepositoryModelLoad', { model_name: MODEL });
  expect(await call('ModelReady', { name: MODEL })).toEqual({ ready: true });
});

test.each<[string, object, number]>([
  [
    'an unknown model',
    {
      model_name: 'none',
      inputs: [{ name: 'input', datatype: 'FP32', shape }],
      raw_input_contents: [Buffer.alloc(12_288)],
    },
    status.NOT_FOUND,
  ],
  [
    'too few bytes',
    {
      model_name: MODEL,
      inputs: [{ name: 'input', datatype: 'FP32', shape }],
      raw_input_contents: [Buffer.alloc(4)],
    },
    status.INVALID_ARGUMENT,
  ],
  ['no inputs', { model_name: MODEL }, status.INVALID_ARGUMENT],
  [
    'an output that is requested twice',
    {
      model_name: MODEL,
      inputs: [{ name: 'input', datatype: 'FP32', shape }],
      raw_input_contents: [Buffer.alloc(12_288)],
      outputs: [{ name: 'logits' }, { name: 'logits' }],
    },
    status.INVALID_ARGUMENT,
  ],
  [
    'contents beside raw ones',
    {
      model_name: MODEL,
      inputs: [{ name: 'input', datatype: 'FP32', shape, contents: { fp32_contents: [1] } }],
      raw_input_contents: [Buffer.alloc(12_288)],
    },
    status.INVALID_ARGUMENT,
  ],
  [
    'contents of another type beside the right ones',
    {
      model_name: MODEL,
      inputs: [
        {
          ...{ name: 'input', datatype: 'FP32', shape },
          contents: { fp32_contents: new Array(3072).fill(0.5), int_contents: [1] },
        },
      ],
    },
    status.INVALID_ARGUMENT,
  ],
])('refuses %s', async (_what, request, code) => {
  await expect(call('ModelInfer', request)).rejects.toMatchObject({ code });
});
