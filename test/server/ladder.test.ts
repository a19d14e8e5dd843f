/** Ladders in a model repository. */
import { join, resolve } from 'node:path';
import { credentials, loadPackageDefinition, Metadata, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { InferenceSession, type ItemTrace, type Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import { createServer } from 'residual-skip-server';
import { folderOf, removeFolders } from '../helpers/files.js';
import { foreign } from '../helpers/foreign-network.js';
import { between, colours, itemsFrom, ladderPolicy, rowsOf, run, sureness } from '../helpers/ladders.js';
import { promising } from '../helpers/policies.js';

const MODEL = foreign({ channels: 16 });
const SMALL = foreign({ seed: 50, blocks: 2 });
const ITEMS = 16;
const picture = colours(ITEMS);
/** Thresholds at which about 70 and 30 % of the pictures are answered by the small network, and at which all and none are. */
let careful: number;
let bold: number;
const [NEVER, ALWAYS] = [2, 0];
beforeAll(async () => {
  const sure = sureness((await run(SMALL, picture)).rows);
  careful = between(sure, 0.7);
  bold = between(sure, 0.3);
});
afterAll(removeFolders);

const policyAt = (threshold: number, limit: number, more: object = {}) =>
  promising(limit, { ...ladderPolicy(MODEL, [{ name: 'small', bytes: SMALL, threshold }]), ...more });

/** A repository with the ladder as the first version of `shop`. */
const repository = (policy: object, front = SMALL) =>
  folderOf({
    'shop/1/model.onnx': MODEL,
    'shop/1/small.onnx': front,
    'shop/1/policy.json': JSON.stringify(policy),
  });

type Entry = Readonly<Record<string, unknown>>;

async function serving(policy: object, options: object = {}) {
  const log: Entry[] = [];
  const folder = repository(policy);
  const server = await createServer({
    folders: [folder],
    ...{ port: 0, grpcPort: null, threads: 1, shadow: 0, log: (entry: Entry) => log.push(entry) },
    ...options,
  });
  return {
    folder,
    log,
    client: new Client(server.url),
    grpcAddress: server.grpcAddress,
    metrics: async () => (await fetch(`${server.url}/metrics`)).text(),
    [Symbol.asyncDispose]: () => server.close(),
  };
}

/** Rows and traces of a session, item by item. */
async function alone(policy: object, input: Tensor<'float32'> = picture) {
  await using session = await InferenceSession.create(join(repository(policy), 'shop/1'));
  const rows: number[][] = [];
  const traces: ItemTrace[] = [];
  for (let i = 0; i < input.dims[0]!; i++) {
    const { outputs, trace } = await session.runTraced({ picture: itemsFrom(input, i, i + 1) });
    rows.push(...rowsOf(outputs.votes!));
    traces.push(...trace.items);
  }
  return { rows, traces };
}

const rungOf = ({ exits }: ItemTrace) => exits.find(({ taken }) => taken)?.after ?? 'model';

test('a batch has the answers of its items alone, each of which climbs by itself, and traces name the rung', async () => {
  const policy = policyAt(careful, 0.01);
  const expected = await alone(policy);
  await using server = await serving(policy);
  const { outputs, trace, ...answer } = await server.client.infer('shop', { picture }, { trace: true });
  expect(rowsOf(outputs.votes as Tensor)).toEqual(expected.rows);
  expect(trace).toEqual(JSON.parse(JSON.stringify(expected.traces)));
  const rungs = (trace as ItemTrace[]).map(rungOf);
  expect(new Set(rungs)).toEqual(new Set(['small', 'model']));
  const sure = sureness((await run(SMALL, picture)).rows);
  expect(rungs).toEqual(sure.map((score) => (score >= careful ? 'small' : 'model')));
  expect(answer).toMatchObject({ policy: '0.01', promise: { limit: 0.01, metric: 'disagreement' } });
  const saved = expected.traces.reduce((sum, { multiplyAddsSkipped }) => sum + multiplyAddsSkipped, 0);
  const { multiplyAdds } = await run(MODEL, itemsFrom(picture, 0, 1));
  expect(answer.multiplyAddsSkipped).toBeCloseTo(saved / (ITEMS * multiplyAdds), 12);
  // Requests that wait together run in one call.
  const each = await Promise.all(
    expected.rows.map((_, i) => server.client.infer('shop', { picture: itemsFrom(picture, i, i + 1) })),
  );
  expect(each.flatMap(({ outputs: own }) => rowsOf(own.votes as Tensor))).toEqual(expected.rows);
});

test('gRPC has the same answers and traces', async () => {
  const policy = policyAt(careful, 0.01);
  const { rows, traces } = await alone(policy);
  await using server = await serving(policy, { grpcPort: 0 });
  type Stub = {
    ModelInfer(
      request: object,
      data: Metadata,
      done: (error: ServiceError | null, answer: Answer) => void,
    ): void;
    close(): void;
  };
  type Answer = {
    readonly raw_output_contents: readonly Buffer[];
    readonly parameters: Readonly<Record<string, { readonly string_param?: string }>>;
  };
  const { inference } = loadPackageDefinition(
    loadSync(resolve('server/proto/open_inference.proto'), { keepCase: true }),
  ) as never as {
    inference: { GRPCInferenceService: new (address: string, how: object) => Stub };
  };
  const stub = new inference.GRPCInferenceService(server.grpcAddress!, credentials.createInsecure());
  const request = {
    model_name: 'shop',
    parameters: { trace: { bool_param: true } },
    inputs: [{ name: 'picture', datatype: 'FP32', shape: picture.dims }],
    raw_input_contents: [Buffer.from(picture.data.buffer)],
  };
  const answer = await new Promise<Answer>((done, fail) =>
    stub.ModelInfer(request, new Metadata(), (error, answered) => (error ? fail(error) : done(answered))),
  );
  stub.close();
  const bytes = Buffer.concat(answer.raw_output_contents as Buffer[]);
  expect(bytes).toEqual(Buffer.from(Float32Array.from(rows.flat()).buffer));
  expect(JSON.parse(answer.parameters.trace!.string_param!)).toEqual(JSON.parse(JSON.stringify(traces)));
});

test('a request may ask for full depth, or for a bolder setting, which may have more fronts', async () => {
  const first = { name: 'small', bytes: SMALL, threshold: NEVER };
  const half = { name: 'half', size: [8, 8] as [number, number], threshold: ALWAYS };
  const settings = [policyAt(bold, 0.05), promising(0.1, ladderPolicy(MODEL, [half, first]))];
  await using server = await serving({ ...policyAt(careful, 0.01), settings });
  const ask = async (policy: string) => {
    const { trace, blocksSkipped } = await server.client.infer('shop', { picture }, { policy, trace: true });
    return { rungs: (trace as ItemTrace[]).map(rungOf), blocksSkipped };
  };
  expect(await ask('full')).toEqual({ rungs: Array(ITEMS).fill('model'), blocksSkipped: 0 });
  const count = ({ rungs }: Awaited<ReturnType<typeof ask>>) =>
    rungs.filter((name) => name === 'small').length;
  const [few, more] = [count(await ask('0.01')), count(await ask('0.05'))];
  expect(few).toBeGreaterThan(0);
  expect(more).toBeGreaterThan(few);
  expect((await ask('0.1')).rungs).toEqual(Array(ITEMS).fill('half'));
});

test('with a target a ladder begins in full, goes bolder while requests wait, and returns', async () => {
  const settings = [policyAt(ALWAYS, 0.05)];
  const targets = { targetQueue: 6, maxItems: 1 };
  await using server = await serving({ ...policyAt(careful, 0.01), settings }, targets);
  const seen: string[] = [];
  const flood = async () => {
    while (!seen.includes('0.05')) seen.push((await server.client.infer('shop', { picture })).policy);
  };
  await Promise.all(Array.from({ length: 13 }, flood));
  const active = async () => /setting_active\{.*setting="full"\} 1/.test(await server.metrics());
  while (!(await active())) await new Promise((done) => setTimeout(done, 20));
  expect((await server.client.infer('shop', { picture })).policy).toBe('full');
  // Where many wait, it goes to the boldest setting at once.
  const changes = server.log.filter(({ to }) => to !== undefined);
  expect(changes[0]).toMatchObject({ from: 'full' });
  expect(changes.map(({ to }) => to)).toContain('0.05');
  expect(changes.at(-1)).toMatchObject({ to: 'full' });
});

test('policies that are named may be ladders of several models', async () => {
  const other = foreign({ channels: 12 });
  const models = folderOf({
    'shop/model.onnx': MODEL,
    'shop/small.onnx': SMALL,
    'plain/model.onnx': other,
    'plain/tiny.onnx': SMALL,
    'bold.json': JSON.stringify(policyAt(ALWAYS, 0.02)),
    'careful.json': JSON.stringify(policyAt(careful, 0.01)),
    'other.json': JSON.stringify(
      promising(0.03, ladderPolicy(other, [{ name: 'tiny', bytes: SMALL, threshold: ALWAYS }])),
    ),
  });
  for (const names of [
    ['careful', 'bold', 'other'],
    ['careful', 'other', 'model'],
  ]) {
    const policies = names.map((name) => (name === 'model' ? name : join(models, `${name}.json`)));
    const server = await createServer({
      folders: [join(models, 'shop'), join(models, 'plain')],
      ...{ policies, port: 0, grpcPort: null, threads: 1, shadow: 0 },
    });
    const client = new Client(server.url);
    const ask = async (model: string, policy: string) => {
      const { trace } = await client.infer(model, { picture }, { policy, trace: true });
      return new Set((trace as ItemTrace[]).map(rungOf));
    };
    expect(await ask('shop', '0.01')).toEqual(new Set(['small', 'model']));
    expect(await ask('plain', '0.03')).toEqual(new Set(['tiny']));
    if (names.includes('bold')) expect(await ask('shop', '0.02')).toEqual(new Set(['small']));
    else expect(await ask('plain', 'model')).toEqual(new Set(['model']));
    await server.close();
  }
});

test('a broken promise is found: the model runs in full from then on', async () => {
  await using server = await serving(policyAt(ALWAYS, 0.01), { shadow: 1 });
  const input = colours(64);
  while (server.log.length === 0) await server.client.infer('shop', { picture: input });
  expect(server.log[0]).toMatchObject({ event: 'trip', model: 'shop', setting: '0.01', limit: 0.01 });
  const [small, full] = [await run(SMALL, input), await run(MODEL, input)];
  const { outputs, policy } = await server.client.infer('shop', { picture: input });
  expect(policy).toBe('full');
  expect(rowsOf(outputs.votes as Tensor)).toEqual(full.rows);
  expect(small.rows).not.toEqual(full.rows);
});

test('a promise that holds is not said to be broken', async () => {
  await using server = await serving(policyAt(NEVER, 0.05), { shadow: 1 });
  const different = colours(160);
  for (let i = 0; i < 160; i += ITEMS)
    await server.client.infer('shop', { picture: itemsFrom(different, i, i + ITEMS) });
  expect(await server.metrics()).toMatch(/monitor_tripped\{.*setting="0.05"\} 0/);
  expect(await server.metrics()).toMatch(/monitor_checks\{.*setting="0.05"\} 1\d\d/);
  expect(server.log).toEqual([]);
});

test('guarded answers of a front are verified by the network', async () => {
  const [small, full] = [await run(SMALL, picture), await run(MODEL, picture)];
  const guarded = new Set(small.rows.map((row) => row.indexOf(Math.max(...row))));
  const labels = ['a', 'b', 'c', 'd', 'e'];
  const answer = [...guarded][0]!;
  const guards = [{ labels: [labels[answer]!], action: 'verify' }];
  await using server = await serving(policyAt(ALWAYS, 0.05, { guards, labels }));
  const { outputs } = await server.client.infer('shop', { picture });
  for (const [i, row] of rowsOf(outputs.votes as Tensor).entries()) {
    const own = small.rows[i]!;
    const isGuarded = own.indexOf(Math.max(...own)) === answer;
    expect(row).toEqual(isGuarded ? full.rows[i] : own);
  }
});

test('items that climb in vain cost more than in full, which metrics and answers say', async () => {
  await using server = await serving(policyAt(NEVER, 0.05, { settings: [policyAt(ALWAYS, 0.1)] }));
  const executed = async () => {
    const text = await server.metrics();
    const of = (name: string) => Number(new RegExp(`${name}_total\\{[^}]*\\} (\\S+)`).exec(text)![1]);
    return of('multiply_adds_executed') - of('multiply_adds_full');
  };
  const [small, full] = [await run(SMALL, picture), await run(MODEL, picture)];
  const climbed = await server.client.infer('shop', { picture });
  expect(climbed.multiplyAddsSkipped).toBeCloseTo(-small.multiplyAdds / full.multiplyAdds, 12);
  expect(await executed()).toBe(ITEMS * small.multiplyAdds);
  await server.client.infer('shop', { picture }, { policy: '0.1' });
  expect(await executed()).toBe(ITEMS * (2 * small.multiplyAdds - full.multiplyAdds));
});

test('a front whose file has changed is an error that names it', async () => {
  const broken = repository(policyAt(careful, 0.01), MODEL);
  await expect(createServer({ folders: [broken], port: 0, grpcPort: null })).rejects.toMatchObject({
    code: 'POLICY_MISMATCH',
    message: expect.stringMatching(/front 'small'.*restore that file/),
  });
});
