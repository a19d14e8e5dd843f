/**
 * The Open Inference Protocol, version 2, as its specification has it: required APIs over REST and gRPC, and the
 * extensions that the server names. https://github.com/kserve/open-inference-protocol
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { credentials, loadPackageDefinition, Metadata, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { createServer, type RunningServer } from 'residual-skip-server';
import { z } from 'zod';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';

/** `sums` adds floats and whole numbers: two inputs of different datatypes, two outputs; with each version a constant more. */
function sums(): Uint8Array {
  const graph = new GraphBuilder();
  const a = graph.input('a', ['batch', 3]);
  const b = graph.input('b', ['batch', 3], 'int64');
  const c = graph.node('Cast', [b], { to: 1 });
  graph.nodes('Add', [a, c], {}, { outputs: ['sum'] });
  graph.nodes('Mul', [a, c], {}, { outputs: ['product'] });
  return modelBytes(graph.output('sum', ['batch', 3]).output('product', ['batch', 3]));
}

const CIFAR = 'cifar10-resnet14-exits';
const cat = readFileSync(resolve('examples/images/cat-0000.jpg'));
type Call = (
  request: object,
  metadata: Metadata,
  done: (error: ServiceError | null, answer: never) => void,
) => void;

let server: RunningServer;
let stub: Readonly<Record<string, Call>> & { close(): void };
beforeAll(async () => {
  const folder = folderOf({ 'sums/1/model.onnx': sums(), 'sums/2/model.onnx': sums() });
  server = await createServer({ folders: [folder, resolve('models', CIFAR)], port: 0, grpcPort: 0 });
  const definition = loadSync(resolve('server/proto/open_inference.proto'), {
    keepCase: true,
    longs: Number,
  });
  const { inference } = loadPackageDefinition(definition) as never as {
    inference: { GRPCInferenceService: new (address: string, how: object) => typeof stub };
  };
  stub = new inference.GRPCInferenceService(server.grpcAddress!, credentials.createInsecure());
});
afterAll(async () => {
  stub.close();
  await server.close();
  removeFolders();
});

const rest = (path: string, init: RequestInit = {}) => fetch(`${server.url}/${path}`, init);
const json = async (path: string, body?: unknown) => {
  const headers = { 'content-type': 'application/json' };
  const response = await rest(
    path,
    body === undefined ? {} : { method: 'POST', headers, body: JSON.stringify(body) },
  );
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};
// biome-ignore lint/suspicious/noExplicitAny: messages of gRPC have no types here
const grpc = (method: string, request: object = {}): Promise<any> =>
  new Promise((done, fail) =>
    stub[method]!.call(stub, request, new Metadata(), (error, answer) =>
      error ? fail(error) : done(answer),
    ),
  );

const a = [1, 2, 3, 4, 5, 6];
const b = [10, 20, 30, 40, 50, 60];
const sum = [11, 22, 33, 44, 55, 66];
const product = [10, 40, 90, 160, 250, 360];
const inputs = [
  { name: 'a', datatype: 'FP32', shape: [2, 3], data: a },
  { name: 'b', datatype: 'INT64', shape: [2, 3], data: b },
];
const tensorMetadata = z.strictObject({
  name: z.string(),
  datatype: z.enum(['BOOL', 'UINT8', 'INT32', 'INT64', 'FP32', 'BYTES']),
  shape: z.array(z.int().min(-1)),
});
const responseOutput = z.strictObject({
  name: z.string(),
  shape: z.array(z.int().min(0)),
  datatype: z.string(),
  parameters: z.record(z.string(), z.unknown()).optional(),
  data: z.array(z.unknown()).optional(),
});
const inferResponse = z.strictObject({
  model_name: z.string(),
  model_version: z.string().optional(),
  id: z.string().optional(),
  parameters: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
  outputs: z.array(responseOutput),
});

describe('REST', () => {
  test('health', async () => {
    expect(await json('v2/health/live')).toEqual({ status: 200, body: { live: true } });
    expect(await json('v2/health/ready')).toEqual({ status: 200, body: { ready: true } });
    expect(await json('v2/models/sums/ready')).toEqual({ status: 200, body: { name: 'sums', ready: true } });
    expect((await json('v2/models/sums/versions/1/ready')).status).toBe(200);
    expect((await json('v2/models/none/ready')).status).toBe(404);
  });

  test('metadata of the server and of models, with all versions', async () => {
    const { body } = await json('v2');
    z.strictObject({ name: z.string(), version: z.string(), extensions: z.array(z.string()) }).parse(body);
    for (const path of ['v2/models/sums', 'v2/models/sums/versions/2']) {
      const metadata = z
        .strictObject({
          name: z.literal('sums'),
          versions: z.array(z.string()),
          platform: z.string(),
          inputs: z.array(tensorMetadata),
          outputs: z.array(tensorMetadata),
          // Not in the protocol: which policy runs.
          parameters: z.strictObject({ policy: z.literal('model') }),
        })
        .parse((await json(path)).body);
      expect(metadata.versions).toEqual(['1', '2']);
      expect(metadata.inputs[1]).toEqual({ name: 'b', datatype: 'INT64', shape: [-1, 3] });
    }
  });

  test('inference: the id comes back, outputs in the order asked for, the newest version unless one is named', async () => {
    const outputs = [{ name: 'product' }, { name: 'sum' }];
    const { status, body } = await json('v2/models/sums/infer', { id: '42', inputs, outputs });
    expect(status).toBe(200);
    expect(inferResponse.parse(body)).toMatchObject({
      ...{ model_name: 'sums', model_version: '2', id: '42' },
      outputs: [
        { name: 'product', datatype: 'FP32', shape: [2, 3], data: product },
        { name: 'sum', datatype: 'FP32', shape: [2, 3], data: sum },
      ],
    });
    const old = inferResponse.parse((await json('v2/models/sums/versions/1/infer', { inputs })).body);
    expect(old).toMatchObject({ model_version: '1', outputs: [{ name: 'sum' }, { name: 'product' }] });
    expect(old).not.toHaveProperty('id');
    expect((await json('v2/models/sums/versions/3/infer', { inputs })).status).toBe(404);
  });

  test('tensor data may be nested as their shape is', async () => {
    const nested = [
      {
        ...inputs[0],
        data: [
          [1, 2, 3],
          [4, 5, 6],
        ],
      },
      inputs[1],
    ];
    const { body } = await json('v2/models/sums/infer', { inputs: nested });
    expect(inferResponse.parse(body).outputs[0]!.data).toEqual(sum);
  });

  test('errors are an object with `error`', async () => {
    const { status, body } = await json('v2/models/sums/infer', { inputs: inputs.slice(0, 1) });
    expect(status).toBe(400);
    expect(body).toEqual({ error: expect.stringContaining('b'), code: 'INVALID_ARGUMENT' });
  });

  test('binary tensor data: of some inputs and some outputs, the rest as JSON', async () => {
    const bytes = Buffer.from(BigInt64Array.from(b, BigInt).buffer);
    const head = JSON.stringify({
      inputs: [
        inputs[0],
        { name: 'b', datatype: 'INT64', shape: [2, 3], parameters: { binary_data_size: bytes.length } },
      ],
      outputs: [
        { name: 'sum', parameters: { binary_data: true } },
        { name: 'product', parameters: { binary_data: false } },
      ],
    });
    const response = await rest('v2/models/sums/infer', {
      method: 'POST',
      headers: {
        'Inference-Header-Content-Length': `${head.length}`,
        'content-type': 'application/octet-stream',
      },
      body: Buffer.concat([Buffer.from(head), bytes]),
    });
    expect(response.status).toBe(200);
    const length = Number(response.headers.get('inference-header-content-length'));
    const body = Buffer.from(await response.arrayBuffer());
    const { outputs } = inferResponse.parse(JSON.parse(body.toString('utf8', 0, length)));
    expect(outputs[0]!.parameters).toEqual({ binary_data_size: 24 });
    expect(outputs[1]!.data).toEqual(product);
    expect([...new Float32Array(new Uint8Array(body.subarray(length)).buffer)]).toEqual(sum);
  });

  test('BYTES in binary, each element behind its length, and classes as BYTES in binary', async () => {
    const element = Buffer.concat([Buffer.alloc(4), cat]);
    element.writeUInt32LE(cat.length);
    const bytes = Buffer.concat([element, element]);
    const head = JSON.stringify({
      inputs: [
        { name: 'input', datatype: 'BYTES', shape: [2], parameters: { binary_data_size: bytes.length } },
      ],
      outputs: [{ name: 'logits', parameters: { classification: 2, binary_data: true } }],
    });
    const response = await rest(`v2/models/${CIFAR}/infer`, {
      method: 'POST',
      headers: {
        'Inference-Header-Content-Length': `${head.length}`,
        'content-type': 'application/octet-stream',
      },
      body: Buffer.concat([Buffer.from(head), bytes]),
    });
    const length = Number(response.headers.get('inference-header-content-length'));
    const body = Buffer.from(await response.arrayBuffer());
    const { outputs } = inferResponse.parse(JSON.parse(body.toString('utf8', 0, length)));
    expect(outputs).toMatchObject([{ datatype: 'BYTES', shape: [2, 2] }]);
    const classes: string[] = [];
    for (let at = length; at < body.length; ) {
      const size = body.readUInt32LE(at);
      classes.push(body.toString('utf8', at + 4, at + 4 + size));
      at += 4 + size;
    }
    expect(classes).toHaveLength(4);
    expect(classes[0]).toMatch(/^[-\d.e]+:3:cat$/);
    expect(classes.slice(2)).toEqual(classes.slice(0, 2));
  });

  test('statistics of one version, of a model, and of all', async () => {
    const duration = z.strictObject({ count: z.int().min(0), ns: z.int().min(0) });
    const stats = z.strictObject({
      model_stats: z.array(
        z.strictObject({
          ...{ name: z.string(), version: z.string() },
          ...{ last_inference: z.int(), inference_count: z.int(), execution_count: z.int() },
          inference_stats: z.record(z.string(), duration),
          batch_stats: z.array(
            z.strictObject({
              ...{ batch_size: z.int().min(1) },
              ...{ compute_input: duration, compute_infer: duration, compute_output: duration },
            }),
          ),
        }),
      ),
    });
    const of = async (path: string) => stats.parse((await json(path)).body).model_stats;
    const [one] = await of('v2/models/sums/versions/2/stats');
    expect(one!.inference_stats.success!.count).toBeGreaterThan(0);
    expect(one!.inference_count).toBeGreaterThanOrEqual(one!.execution_count);
    expect(Object.keys(one!.inference_stats)).toEqual(
      expect.arrayContaining(['success', 'fail', 'queue', 'compute_infer']),
    );
    const calls = one!.batch_stats.reduce((sum, { compute_infer: { count } }) => sum + count, 0);
    expect(calls).toBe(one!.execution_count);
    expect(one!.batch_stats.reduce((sum, { compute_infer: { ns } }) => sum + ns, 0)).toBeGreaterThan(0);
    const failed = await json('v2/models/sums/versions/2/infer', { inputs, outputs: [{ name: 'none' }] });
    expect(failed.status).toBe(400);
    const [after] = await of('v2/models/sums/versions/2/stats');
    const [before, fail] = [one, after].map((stat) => stat!.inference_stats.fail!);
    expect(fail!.count).toBe(before!.count + 1);
    expect(fail!.ns).toBeGreaterThan(before!.ns);
    expect(await of('v2/models/sums/stats')).toHaveLength(2);
    expect(await of('v2/models/stats')).toHaveLength(3);
  });

  test('model repository: the index, all or ready ones; unload and load', async () => {
    const entry = z.strictObject({
      name: z.string(),
      version: z.string(),
      state: z.string(),
      reason: z.string(),
    });
    const index = async (body: object) =>
      z.array(entry).parse((await json('v2/repository/index', body)).body);
    expect((await json('v2/repository/models/sums/unload', {})).status).toBe(200);
    expect((await json('v2/models/sums/ready')).status).toBe(503);
    expect((await json('v2/models/sums/infer', { inputs })).status).toBe(503);
    expect(await index({})).toHaveLength(3);
    expect(await index({ ready: true })).toEqual([{ name: CIFAR, version: '1', state: 'READY', reason: '' }]);
    expect((await json('v2/repository/models/sums/load', {})).status).toBe(200);
    expect(await index({ ready: true })).toHaveLength(3);
    expect((await json('v2/repository/models/none/load', {})).status).toBe(404);
    expect((await json('v2/repository/index', { ready: 'x' })).status).toBe(400);
  });

  test('no request is dropped while the model is loaded again', async () => {
    const asked = Array.from({ length: 60 }, async (_, i) => {
      await new Promise((done) => setTimeout(done, i));
      return (await json('v2/models/sums/infer', { inputs })).status;
    });
    const loads = [json('v2/repository/models/sums/load', {}), json('v2/repository/models/sums/load', {})];
    expect(new Set(await Promise.all(asked))).toEqual(new Set([200]));
    for (const { status } of await Promise.all(loads)) expect(status).toBe(200);
  });
});

describe('gRPC', () => {
  const tensors = inputs.map(({ data: _, ...input }) => input);
  const floats = (bytes: Buffer) => [...new Float32Array(new Uint8Array(bytes).buffer)];

  test('health and metadata', async () => {
    expect(await grpc('ServerLive')).toEqual({ live: true });
    expect(await grpc('ServerReady')).toEqual({ ready: true });
    expect(await grpc('ModelReady', { name: 'sums', version: '1' })).toEqual({ ready: true });
    expect(await grpc('ServerMetadata')).toMatchObject({
      name: 'residual-skip',
      extensions: expect.any(Array),
    });
    expect(await grpc('ModelMetadata', { name: 'sums' })).toMatchObject({
      versions: ['1', '2'],
      inputs: [{ name: 'a' }, { name: 'b', datatype: 'INT64', shape: [-1, 3] }],
    });
  });

  test('inference with typed contents, with raw ones, and of a version', async () => {
    const contents = [{ fp32_contents: a }, { int64_contents: b }];
    const raw_input_contents = [
      Buffer.from(Float32Array.from(a).buffer),
      Buffer.from(BigInt64Array.from(b, BigInt).buffer),
    ];
    const model_name = 'sums';
    const typed = await grpc('ModelInfer', {
      ...{ model_name, model_version: '1', id: '42' },
      inputs: tensors.map((input, i) => ({ ...input, contents: contents[i] })),
      outputs: [{ name: 'product' }],
    });
    expect(typed).toMatchObject({
      ...{ model_name, model_version: '1', id: '42' },
      outputs: [{ name: 'product', datatype: 'FP32', shape: [2, 3] }],
    });
    expect(typed.raw_output_contents.map(floats)).toEqual([product]);
    const raw = await grpc('ModelInfer', { model_name, inputs: tensors, raw_input_contents });
    expect(raw.model_version).toBe('2');
    expect(raw.raw_output_contents.map(floats)).toEqual([sum, product]);
  });

  test('BYTES images as raw contents; parameters of every kind', async () => {
    const element = Buffer.concat([Buffer.alloc(4), cat]);
    element.writeUInt32LE(cat.length);
    const { outputs, parameters, raw_output_contents } = await grpc('ModelInfer', {
      model_name: CIFAR,
      inputs: [{ name: 'input', datatype: 'BYTES', shape: [1] }],
      outputs: [{ name: 'logits', parameters: { classification: { uint64_param: 1 } } }],
      parameters: {
        policy: { string_param: 'full' },
        trace: { bool_param: true },
        timeout: { int64_param: 60e6 },
      },
      raw_input_contents: [element],
    });
    expect(outputs).toMatchObject([{ datatype: 'BYTES', shape: [1, 1] }]);
    expect(raw_output_contents[0].subarray(4).toString()).toMatch(/:3:cat$/);
    expect(parameters).toMatchObject({
      policy: { string_param: 'full' },
      promise_limit: { int64_param: 0 },
      trace: { string_param: expect.stringContaining('blocks') },
    });
  });

  test('statistics and repository', async () => {
    expect((await grpc('ModelStatistics', {})).model_stats).toHaveLength(3);
    expect((await grpc('ModelStatistics', { name: 'sums', version: '2' })).model_stats).toMatchObject([
      { name: 'sums', version: '2', inference_stats: { success: { count: expect.any(Number) } } },
    ]);
    await grpc('RepositoryModelUnload', { model_name: 'sums' });
    expect((await grpc('RepositoryIndex', { ready: true })).models).toHaveLength(1);
    await grpc('RepositoryModelLoad', { model_name: 'sums' });
    expect((await grpc('RepositoryIndex', {})).models).toHaveLength(3);
  });
});
