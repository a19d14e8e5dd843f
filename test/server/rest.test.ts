import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ImageClassifier, InferenceSession, Tensor } from 'residual-skip';
import { createServer, type RunningServer } from 'residual-skip-server';

const MODEL = 'cifar10-resnet14-exits';
const FOLDER = resolve('models', MODEL);
const IMAGES = resolve('examples/images');
const CAT = readFileSync(join(IMAGES, 'cat-0000.jpg'));

interface Answer {
  readonly id: string;
  readonly parameters: { readonly trace: string };
  readonly outputs: readonly [{ readonly data: readonly (number & string)[] }];
}

let server: RunningServer;
let session: InferenceSession;
beforeAll(async () => {
  server = await createServer({ folders: [FOLDER], port: 0, grpcPort: null, policies: ['model'] });
  session = await InferenceSession.create(FOLDER, { policy: 'model' });
});
afterAll(async () => {
  await server.close();
  await session.release();
});

const get = (path: string) => fetch(`${server.url}${path}`);
const post = (path: string, body: unknown = {}) =>
  fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
const infer = (body: unknown) => post(`/v2/models/${MODEL}/infer`, body);

function input(seed: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(seed + i * 0.1));
}

test('health, server and model metadata', async () => {
  expect(await (await get('/v2/health/live')).json()).toEqual({ live: true });
  expect(await (await get('/v2/health/ready')).json()).toEqual({ ready: true });
  expect(await (await get('/v2')).json()).toMatchObject({
    name: 'residual-skip',
    extensions: expect.any(Array),
  });
  expect(await (await get(`/v2/models/${MODEL}`)).json()).toEqual({
    name: MODEL,
    versions: ['1'],
    platform: 'onnx_onnxv1',
    parameters: { policy: 'model' },
    inputs: [{ name: 'input', datatype: 'FP32', shape: [-1, 3, 32, 32] }],
    outputs: [{ name: 'logits', datatype: 'FP32', shape: [-1, 10] }],
  });
  expect((await get(`/v2/models/${MODEL}/versions/1/ready`)).status).toBe(200);
  expect((await get(`/v2/models/${MODEL}/versions/2/ready`)).status).toBe(404);
});

test('JSON in, JSON out: the values of session.run, with the setting that ran and its promise', async () => {
  const response = await infer({
    id: 'a',
    parameters: { trace: true, policy: 'full' },
    inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...input(1)] }],
  });
  const answer = (await response.json()) as Answer;
  const expected = await session.run(
    { input: new Tensor('float32', input(1), [1, 3, 32, 32]) },
    { policy: 'full' },
  );
  expect(answer).toMatchObject({
    model_name: MODEL,
    model_version: '1',
    id: 'a',
    parameters: { policy: 'full', promise_limit: 0, blocks_skipped: 0, multiply_adds_skipped: 0 },
    outputs: [{ name: 'logits', datatype: 'FP32', shape: [1, 10] }],
  });
  expect(answer.outputs[0].data).toEqual([...expected.logits!.data]);
  expect(JSON.parse(answer.parameters.trace)[0].blocks).toHaveLength(session.blocks.length);
});

test.each([
  ['FP32', '1e999', 'data[2]: its number is beyond the range of FP32'],
  ['FP32', '-1e39', 'data[2]: its number is beyond the range of FP32'],
  ['FP16', '70000', 'data[2]: its number is beyond the range of FP16'],
  ['FP64', '1e309', 'data[2]: its number is beyond the range of FP64'],
])('%s: %s in JSON is refused, and not taken for infinity', async (datatype, number, why) => {
  const data = [1, 2, number, ...Array.from({ length: 3 * 32 * 32 - 3 }, () => 0)];
  const response = await fetch(`${server.url}/v2/models/${MODEL}/infer`, {
    method: 'POST',
    body: `{"inputs":[{"name":"input","datatype":"${datatype}","shape":[1,3,32,32],"data":[${data}]}]}`,
  });
  const { error } = (await response.json()) as { error: string };
  expect({ status: response.status, error }).toEqual({
    status: 400,
    error: expect.stringContaining(`input 'input': ${why}`),
  });
});

test('a parameter that is beyond all numbers is refused', async () => {
  const response = await fetch(`${server.url}/v2/models/${MODEL}/infer`, {
    method: 'POST',
    body: '{"parameters":{"max_disagreement":1e999},"inputs":[]}',
  });
  expect(response.status).toBe(400);
  expect(await response.text()).toContain('parameters.max_disagreement: expected text, a finite number');
});

test.each([
  [{ timeout: true }, 'parameters.timeout: expected a number, received true'],
  [{ trace: 'false' }, 'parameters.trace: expected true or false, received "false"'],
  [{ binary_data_output: 1 }, 'parameters.binary_data_output: expected true or false, received 1'],
])('parameters of another kind are refused: %j', async (parameters, why) => {
  const response = await infer({ parameters, inputs: [] });
  expect([response.status, await response.text()]).toEqual([
    400,
    expect.stringContaining(JSON.stringify(why).slice(1, -1)),
  ]);
});

test('binary in, binary out', async () => {
  const pixels = Buffer.from(input(2).buffer);
  const head = Buffer.from(
    JSON.stringify({
      parameters: { binary_data_output: true },
      inputs: [
        {
          name: 'input',
          datatype: 'FP32',
          shape: [1, 3, 32, 32],
          parameters: { binary_data_size: pixels.length },
        },
      ],
    }),
  );
  const response = await fetch(`${server.url}/v2/models/${MODEL}/infer`, {
    method: 'POST',
    headers: {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(head.length),
    },
    body: Buffer.concat([head, pixels]),
  });
  const length = Number(response.headers.get('inference-header-content-length'));
  const body = Buffer.from(await response.arrayBuffer());
  const { outputs } = JSON.parse(body.subarray(0, length).toString());
  expect(outputs).toEqual([
    { name: 'logits', datatype: 'FP32', shape: [1, 10], parameters: { binary_data_size: 40 } },
  ]);
  const expected = await session.run({ input: new Tensor('float32', input(2), [1, 3, 32, 32]) });
  expect(body.subarray(length)).toEqual(Buffer.from(expected.logits!.data.buffer as ArrayBuffer));
});

test('images in, classes out', async () => {
  const classifier = await ImageClassifier.from(FOLDER);
  const { top } = await classifier.classify(CAT, { topK: 3 });
  await classifier.release();
  const response = await infer({
    inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], data: [CAT.toString('base64')] }],
    outputs: [{ name: 'logits', parameters: { classification: 3 } }],
  });
  const [output] = ((await response.json()) as Answer).outputs;
  expect(output).toMatchObject({ datatype: 'BYTES', shape: [1, 3] });
  expect(output.data.map((text: string) => text.split(':').slice(1))).toEqual(
    top.map(({ index, label }) => [String(index), label]),
  );
});

test('an inference path may have a version, encoded names and a query; each answer has the id of its request', async () => {
  const body = { inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...input(1)] }] };
  const ids = { 'x-request-id': 'mine' };
  const send = (path: string, headers = {}) =>
    fetch(`${server.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  const encoded = MODEL.replace('-', '%2D');
  for (const path of [`${encoded}/infer`, `${MODEL}/versions/1/infer?a=b`]) {
    const answer = await send(`/v2/models/${path}`, ids);
    expect([answer.status, answer.headers.get('x-request-id')]).toEqual([200, 'mine']);
  }
  expect((await send(`/v2/models/${MODEL}/infer`)).headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/);
  const failed = async (path: string) => {
    const answer = await send(path, ids);
    const { code } = (await answer.json()) as { code: string };
    return { status: answer.status, id: answer.headers.get('x-request-id'), code };
  };
  expect(await failed('/v2/models/%ZZ/infer')).toEqual({ status: 400, id: 'mine', code: 'INVALID_ARGUMENT' });
  expect(await failed(`/v2/models/${MODEL}/versions/9/infer`)).toEqual({
    ...{ status: 404, id: 'mine', code: 'NOT_FOUND' },
  });
  expect((await get(`/v2/models/${MODEL}/infer`)).status).toBe(404);
});

test('many clients at once get their own answers', async () => {
  const seeds = Array.from({ length: 60 }, (_, i) => i);
  const answers = await Promise.all(
    seeds.map(async (seed) => {
      const response = await infer({
        id: String(seed),
        inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...input(seed)] }],
      });
      return (await response.json()) as Answer;
    }),
  );
  for (const seed of seeds) {
    const expected = await session.run({ input: new Tensor('float32', input(seed), [1, 3, 32, 32]) });
    expect(answers[seed]!.id).toBe(String(seed));
    expect(answers[seed]!.outputs[0].data).toEqual([...expected.logits!.data]);
  }
  const { model_stats } = (await (await get(`/v2/models/${MODEL}/stats`)).json()) as {
    model_stats: { inference_stats: { success: { count: number } } }[];
  };
  const [stats] = model_stats;
  expect(stats!.inference_stats.success.count).toBeGreaterThanOrEqual(60);
});

test('the repository: index, unload, load', async () => {
  expect(await (await post('/v2/repository/index')).json()).toEqual([
    { name: MODEL, version: '1', state: 'READY', reason: '' },
  ]);
  expect((await post(`/v2/repository/models/${MODEL}/unload`)).status).toBe(200);
  expect((await get(`/v2/models/${MODEL}/ready`)).status).toBe(503);
  expect((await post(`/v2/repository/models/${MODEL}/load`)).status).toBe(200);
  expect((await get(`/v2/models/${MODEL}/ready`)).status).toBe(200);
});

describe('what is wrong with a request', () => {
  const good = { name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...input(1)] };
  const cat = CAT.toString('base64');
  const files = (shape: readonly number[], data: unknown) => ({
    inputs: [{ name: 'input', datatype: 'BYTES', shape, data }],
  });
  test.each<[string, unknown, number, RegExp]>([
    ['no inputs', {}, 400, /inputs/],
    ['an unknown input', { inputs: [{ ...good, name: 'x' }] }, 400, /x/],
    ['an unknown output', { inputs: [good], outputs: [{ name: 'y' }] }, 400, /y/],
    ['too few values', { inputs: [{ ...good, data: [1] }] }, 400, /input/],
    ['another type', { inputs: [{ ...good, datatype: 'FP64' }] }, 400, /float64/],
    ['a negative length', { inputs: [{ ...good, shape: [-1] }] }, 400, /shape/],
    ['an unknown policy', { inputs: [good], parameters: { policy: 'bold' } }, 400, /bold/],
    [
      'no image',
      { inputs: [{ name: 'input', datatype: 'BYTES', shape: [1], data: ['AAAA'] }] },
      400,
      /image/i,
    ],
    [
      'base64 that was sent as a form, with spaces for its +',
      files([2], [cat, cat.replaceAll('+', ' ')]),
      400,
      /^input 'input': images\[1\]: it isn't base64: character \d+ is " "/,
    ],
    [
      'base64 that was cut',
      files([1], [cat.slice(0, 1001)]),
      400,
      /^input 'input': images\[0\]: .*ends too early/,
    ],
    [
      'a data: URL in place of base64',
      files([1], [`data:image/jpeg;base64,${cat}`]),
      400,
      /images\[0\]: it isn't base64: character 4 is ":"/,
    ],
    [
      'files in lists of another shape',
      files([1, 2], [[cat], [cat]]),
      400,
      /'input': .*axis 0 of the shape \[1, 2\]/,
    ],
    [
      'files in more lists than the shape has',
      files([1], [[cat]]),
      400,
      /'input': element 0 of its data is a list/,
    ],
    ['a number among files', files([2], [cat, 7]), 400, /'input': element 1 of its data is no text/],
    [
      'an output that is requested twice',
      {
        inputs: [good],
        outputs: [{ name: 'logits' }, { name: 'logits', parameters: { classification: 2 } }],
      },
      400,
      /^output 'logits': it is requested twice/,
    ],
    [
      'data beside binary data',
      { inputs: [{ ...good, parameters: { binary_data_size: 0 } }] },
      400,
      /^input 'input': it has data and binary_data_size/,
    ],
    ['a timeout of nothing', { inputs: [good], parameters: { timeout: 0 } }, 400, /timeout/],
  ])('%s', async (_what, body, status, message) => {
    const response = await infer(body);
    expect(response.status).toBe(status);
    expect(((await response.json()) as { error: string }).error).toMatch(message);
  });

  test('an unknown model', async () => {
    expect((await post('/v2/models/none/infer', { inputs: [good] })).status).toBe(404);
  });

  test('a body that is no JSON', async () => {
    const response = await fetch(`${server.url}/v2/models/${MODEL}/infer`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"inputs": [',
    });
    expect(response.status).toBe(400);
  });

  test('an unknown path', async () => {
    expect((await get('/v3')).status).toBe(404);
  });
});

test('/metrics and the live page', async () => {
  const metrics = await (await get('/metrics')).text();
  expect(metrics).toMatch(
    /residual_skip_requests_total\{model="cifar10-resnet14-exits",version="1",outcome="ok"\} \d+/,
  );
  expect(metrics).toMatch(/residual_skip_blocks_total/);
  const page = await get('/');
  expect(page.headers.get('content-type')).toMatch(/html/);
  const events = (await get('/events')).body!.getReader();
  let text = '';
  while (!/^data: .*\n\n/m.test(text.replace(/^event: .*\ndata: .*\n\n/, '')))
    text += Buffer.from((await events.read()).value!).toString();
  const [history, snapshot] = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data!));
  expect(history).toEqual(expect.any(Array));
  expect(snapshot).toMatchObject({ models: [{ name: MODEL, setting: 'model' }] });
  await events.cancel();
});

test('an input that a request names twice is refused', async () => {
  const one = { name: 'input', datatype: 'FP32', shape: [1, 3, 32, 32], data: [...input(1)] };
  const answer = await infer({ inputs: [one, { ...one, data: [...input(2)] }] });
  expect(answer.status).toBe(400);
  expect(await answer.json()).toEqual({
    error: "input 'input': it is there twice; send each input once",
    code: 'INVALID_ARGUMENT',
  });
});

test('a path that is no text, or names a model by hundreds of characters, has an answer of the usual form', async () => {
  const bad = await get('/v2/models/%E0%A4%A');
  expect(bad.status).toBe(400);
  expect(bad.headers.get('x-request-id')).toMatch(/./);
  expect(await bad.json()).toEqual({
    error: "request: '/v2/models/%E0%A4%A' is not a valid url component",
    code: 'INVALID_ARGUMENT',
  });
  const name = 'a'.repeat(300);
  const long = await get(`/v2/models/${name}`);
  expect(long.status).toBe(404);
  expect(await long.json()).toEqual({
    error: `model ${name}: it is unknown; the models are ${MODEL}`,
    code: 'NOT_FOUND',
  });
});
