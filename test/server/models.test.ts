import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { NativeBackend } from 'lib/backends/native.js';
import { InferenceSession, readAudit, replayAudit, storedInputs, Tensor } from 'residual-skip';
import { Client } from 'residual-skip/client';
import { createServer, type RunningServer } from 'residual-skip-server';
import { Answerer } from '../../server/src/bulk/answer.js';
import { ModelRepository } from '../../server/src/models/repository.js';
import { FULL } from '../../server/src/models/settings.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, int64s, modelBytes } from '../helpers/onnx-builder.js';
import { promising } from '../helpers/policies.js';
import { uniform } from '../helpers/random.js';

/** Means of the channels; with `mixes`, by a shape that holds the whole batch, so that a batch runs as one item. */
function means(mixes: boolean): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('input', ['batch', 3, 4, 4]);
  const flat = mixes ? graph.node('Reshape', [x, graph.constant(int64s(1, -1))]) : x;
  const back = mixes ? graph.node('Reshape', [flat, graph.constant(int64s(-1, 3, 4, 4))]) : x;
  const pooled = graph.node('GlobalAveragePool', [back]);
  graph.nodes('Flatten', [pooled], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', 3]));
}

let server: RunningServer;
beforeAll(async () => {
  const folder = folderOf({ 'mixing/model.onnx': means(true), 'plain/model.onnx': means(false) });
  server = await createServer({ folders: [folder], port: 0, grpcPort: null });
});
afterAll(async () => {
  await server.close();
  removeFolders();
});

const batch = (items: number) =>
  new Tensor(
    'float32',
    Float32Array.from({ length: items * 48 }, (_, i) => Math.floor(i / 16)),
    [items, 3, 4, 4],
  );

test.each(['mixing', 'plain'])('%s: answers for each of a batch', async (model) => {
  const { outputs } = await new Client(server.url).infer(model, { input: batch(2) });
  expect([...outputs.logits!.data]).toEqual([0, 1, 2, 3, 4, 5]);
});

test.each(['mixing', 'plain'])('%s: names the best class of each of a batch', async (model) => {
  const response = await fetch(`${server.url}/v2/models/${model}/infer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      inputs: [{ name: 'input', datatype: 'FP32', shape: [2, 3, 4, 4], data: [...batch(2).data] }],
      outputs: [{ name: 'logits', parameters: { classification: 1 } }],
    }),
  });
  expect(await response.json()).toMatchObject({ outputs: [{ shape: [2, 1], data: ['2:2:2', '5:2:2'] }] });
});

test('a batch of nothing leaves the counts numbers', async () => {
  await new Client(server.url).infer('plain', { input: batch(0) }).catch(() => {});
  await new Client(server.url).infer('plain', { input: batch(1) });
  const stats = await (await fetch(`${server.url}/v2/models/plain/stats`)).json();
  expect(JSON.stringify(stats)).not.toContain('null');
});

describe('policies that are tied to a model', () => {
  const [plain, mixing] = [means(false), means(true)];
  const tiedTo = (model: Uint8Array, limit: number) =>
    JSON.stringify(promising(limit, { model: { sha256: createHash('sha256').update(model).digest('hex') } }));
  const start = (policies: readonly string[]) => {
    const folder = folderOf({
      'models/plain/model.onnx': plain,
      'models/mixing/model.onnx': mixing,
      ...Object.fromEntries(policies.map((policy, i) => [`${i}.json`, policy])),
    });
    return createServer({
      folders: [join(folder, 'models')],
      ...{ port: 0, grpcPort: null, policies: policies.map((_, i) => join(folder, `${i}.json`)) },
    });
  };

  test('each model has the settings that fit it', async () => {
    const tied = await start([
      tiedTo(plain, 0.01),
      tiedTo(mixing, 0.02),
      JSON.stringify(promising(0.05, {})),
    ]);
    const names = tied.repository
      .loaded()
      .map(({ name, settings }) => [name, settings.map((one) => one.name)]);
    await tied.close();
    expect(Object.fromEntries(names)).toEqual({
      plain: ['full', '0.01', '0.05'],
      mixing: ['full', '0.02', '0.05'],
    });
  });

  test('a model that no policy fits runs in full', async () => {
    const tied = await start([tiedTo(mixing, 0.02)]);
    const answer = await new Client(tied.url).infer('plain', { input: batch(1) });
    await tied.close();
    expect(answer.policy).toBe('full');
  });

  test('a policy that fits no model is an error', async () => {
    await expect(start([tiedTo(plain, 0.01), tiedTo(new Uint8Array(1), 0.02)])).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(/^--policy: /),
    });
  });
});

describe('a policy that promises the answers of another network', () => {
  const sha256 = (model: Uint8Array) => createHash('sha256').update(model).digest('hex');
  const own = means(false);
  const graph = new GraphBuilder();
  const pooled = graph.node('GlobalAveragePool', [graph.input('input', ['batch', 3, 4, 4])]);
  graph.nodes('Neg', [graph.node('Flatten', [pooled])], {}, { outputs: ['logits'] });
  const other = modelBytes(graph.output('logits', ['batch', 3]));
  const named = { model: { sha256: sha256(own) }, reference: { sha256: sha256(other) } };
  const next = uniform(5);
  /** Of items that are all different: their channels have equal means, so that both networks answer 0, or not. */
  const alike = (items: number) => filled(items, () => Array(3).fill(next()));
  const unlike = (items: number) => filled(items, () => [next(), 1 + next(), 2 + next()]);
  const filled = (items: number, means: () => number[]) => {
    const values = Array.from({ length: items }, means).flat();
    const data = Float32Array.from({ length: items * 48 }, (_, i) => values[Math.floor(i / 16)]!);
    return new Tensor('float32', data, [items, 3, 4, 4]);
  };
  const start = (
    guards: object,
    originals: boolean,
    log?: (entry: object) => void,
    limit = 0.01,
    audit?: { folder: string; inputs: 'store' },
    tokens?: string,
  ) => {
    const folder = folderOf({
      'own/model.onnx': own,
      'other/model.onnx': other,
      'policy.json': JSON.stringify(promising(limit, { ...named, ...guards })),
      tokens: tokens ?? '',
    });
    return createServer({
      folders: [join(folder, 'own')],
      ...(tokens !== undefined && { tokenFile: join(folder, 'tokens') }),
      ...{ port: 0, grpcPort: null, policies: [join(folder, 'policy.json')], shadow: 1, log, audit },
      ...(originals && { originals: [join(folder, 'other')] }),
    });
  };

  test('the option has another name than in earlier versions', async () => {
    await expect(createServer({ folders: ['own'], references: ['other'] } as never)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('references: it is called originals now'),
    });
  });

  test('guards verify with it', async () => {
    const running = await start({ guards: [{ labels: [0, 1, 2] }] }, true);
    const { outputs } = await new Client(running.url).infer('own', { input: batch(1) });
    await running.close();
    expect([...outputs.logits!.data]).toEqual([-0, -1, -2]);
  });

  test('full depth of the model promises nothing; after a trip the other network answers', async () => {
    const log: object[] = [];
    const folder = folderOf({});
    const running = await start({}, true, (entry) => log.push(entry), 0.01, { folder, inputs: 'store' });
    const client = new Client(running.url);
    const infer = (policy?: string) => client.infer('own', { input: batch(2) }, { policy });
    const full = await infer('full');
    expect(full.promise).toBeNull();
    expect([...full.outputs.logits!.data]).toEqual([0, 1, 2, 3, 4, 5]);
    while (log.length === 0) await client.infer('own', { input: unlike(2) });
    expect(log).toMatchObject([{ event: 'trip' }, { event: 'setting', from: '0.01', to: 'original' }]);
    const after = await infer();
    expect(after).toMatchObject({ policy: 'original', promise: { limit: 0 }, blocksSkipped: 0 });
    expect([...after.outputs.logits!.data]).toEqual([-0, -1, -2, -3, -4, -5]);
    expect(await infer('full')).toMatchObject({ policy: 'full', promise: null });
    await expect(infer('0.01')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const metrics = await (await fetch(`${running.url}/metrics`)).text();
    await running.close();
    expect(metrics).toMatch(/setting_active\{.*setting="original"\} 1\n/);
    expect(metrics).toMatch(/items_total\{.*setting="original"\} [1-9]/);

    // Records name the network that answered.
    const records = join(folder, 'own', '1');
    const { entries, problems } = await readAudit(records);
    expect(problems).toEqual([]);
    const answers = entries.filter(({ header }) => header.model.sha256 === sha256(other));
    expect(answers.length).toBeGreaterThanOrEqual(2);
    expect(answers[0]!.record).toMatchObject({ caller: '127.0.0.1', ran: '', exits: [] });
    const session = await InferenceSession.create(answers[0]!.header.model.source!);
    const hashes = new Set(answers.map(({ record }) => record.input!));
    const report = await replayAudit(answers, storedInputs(records, hashes), session);
    await session.release();
    expect(report).toMatchObject({ identical: answers.length, missing: 0, differences: [] });
  });

  test('one camera that is stuck is one item: it does not end the promises for everybody', async () => {
    const log: object[] = [];
    const running = await start({}, true, (entry) => log.push(entry), 0.2);
    const client = new Client(running.url);
    for (let i = 0; i < 96; i++) await client.infer('own', { input: batch(1) });
    const [{ monitor } = { monitor: null }] = running.repository.loaded();
    const [watch] = [...monitor!.watches.values()];
    await watch!.settled();
    expect(watch!.stats().watch).toMatchObject({ checks: 1, disagreements: 1 });
    await running.close();
    expect(log).toEqual([]);
  });

  test('after a trip the promises hold again once the setting has kept them on trial', async () => {
    const log: Record<string, unknown>[] = [];
    const running = await start({}, true, (entry) => log.push(entry as Record<string, unknown>), 0.2);
    const client = new Client(running.url);
    while (log.length < 2) await client.infer('own', { input: unlike(1) });
    const before = log.length;
    // Answers that go on to change keep it on trial.
    for (let i = 0; i < 10; i++) await client.infer('own', { input: unlike(1) });
    expect(log).toHaveLength(before);
    let sent = 0;
    while (log.length === before && sent++ < 2000) await client.infer('own', { input: alike(1) });
    expect(log.slice(before)).toMatchObject([
      { event: 'rearm', setting: '0.2' },
      { event: 'setting', from: 'original', to: '0.2', promise: { limit: 0.2 } },
    ]);
    // So few could not show it: (1 - 0.2)^n must be below the share of false alarms.
    expect(log[before]!.checks).toBeGreaterThan(Math.log(0.05) / Math.log(1 - 0.2));
    expect(await client.infer('own', { input: alike(1) })).toMatchObject({ policy: '0.2' });
    const events = log.length;
    while (log.length === events) await client.infer('own', { input: unlike(1) });
    expect(log[events]).toMatchObject({ event: 'trip', setting: '0.2' });
    await running.close();
  });

  test('a group of clients trips, and comes back, by itself', async () => {
    const log: Record<string, unknown>[] = [];
    const folder = folderOf({});
    const running = await start(
      {},
      true,
      (entry) => 'setting' in entry && log.push(entry as Record<string, unknown>),
      0.2,
      { folder, inputs: 'store' },
      'one group=yard\ntwo group=yard\nthird group=gate\nfourth\n',
    );
    let answers = 0;
    const ask = async (token: string, input: Tensor, options: { policy?: string } = {}) => {
      const answer = await new Client(running.url, { token }).infer('own', { input }, options);
      answers++;
      return answer.policy;
    };
    for (let sent = 0; log.length === 0 && sent < 2000; sent++) await ask('one', unlike(1));
    expect(log).toMatchObject([{ event: 'trip', model: 'own', group: 'yard', setting: '0.2', limit: 0.2 }]);
    const settings = async () => {
      const all: string[] = [];
      for (const token of ['one', 'two', 'third', 'fourth']) all.push(await ask(token, alike(1)));
      return all;
    };
    expect(await settings()).toEqual(['original', 'original', '0.2', '0.2']);
    await expect(ask('two', alike(1), { policy: '0.2' })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(await ask('third', alike(1), { policy: '0.2' })).toBe('0.2');
    const authorization = { headers: { authorization: 'Bearer fourth' } };
    const metrics = await (await fetch(`${running.url}/metrics`, authorization)).text();
    const tripped = [...metrics.matchAll(/monitor_tripped\{.*setting="0.2"(?:,group="(\w+)")?\} (\d)/g)];
    expect(tripped.map(([, group = '', count]) => [group, count])).toEqual([
      ...[
        ['', '0'],
        ['yard', '1'],
        ['gate', '0'],
      ],
    ]);
    for (let sent = 0; log.length === 1 && sent < 2000; sent++) await ask('two', alike(1));
    expect(log[1]).toMatchObject({ event: 'rearm', group: 'yard', setting: '0.2' });
    expect(log).toHaveLength(2);
    expect(await settings()).toEqual(Array(4).fill('0.2'));
    await running.close();
    // Trials, of which no answer is sent, aren't recorded.
    const { entries } = await readAudit(join(folder, 'own', '1'));
    expect(entries).toHaveLength(answers);
  });

  test('a worker of a queue needs it for guards', async () => {
    const guards = { guards: [{ labels: [0] }] };
    const folder = folderOf({
      'own/model.onnx': own,
      'other/model.onnx': other,
      'policy.json': JSON.stringify(promising(0.01, { ...named, ...guards })),
    });
    const load = (original?: string) =>
      Answerer.load(join(folder, 'own'), { policy: join(folder, 'policy.json'), original, threads: 1 });
    await expect(load()).rejects.toMatchObject({ code: 'INVALID_POLICY' });
    await (await load(join(folder, 'other'))).release();
  });

  test('it is what the monitor compares with; without it nothing is monitored', async () => {
    for (const given of [true, false]) {
      const running = await start({}, given);
      await new Client(running.url).infer('own', { input: batch(1) });
      const [{ monitor } = { monitor: null }] = running.repository.loaded();
      const watches = [...(monitor?.watches.values() ?? [])];
      await Promise.all(watches.map((watch) => watch.settled()));
      const counts = watches.map((watch) => watch.stats().watch);
      await running.close();
      expect(counts.map(({ checks, disagreements }) => [checks, disagreements])).toEqual(
        given ? [[1, 1]] : [],
      );
    }
  });
});

describe('the policy of a folder', () => {
  const [plain, other] = [means(false), means(true)];
  const tied = (model: Uint8Array, limit: number, rest: object = {}) =>
    promising(limit, { model: { sha256: createHash('sha256').update(model).digest('hex') }, ...rest });
  const folder = folderOf({
    'plain/model.onnx': plain,
    'plain/policy.json': JSON.stringify({ ...tied(plain, 0.01), settings: [promising(0.05, {})] }),
    'versions/1/model.onnx': plain,
    'versions/2/model.onnx': other,
    'versions/2/policy.json': JSON.stringify(tied(other, 0.02)),
  });
  const elsewhere = folderOf({
    'plain.json': JSON.stringify(tied(plain, 0.03)),
    'stale/model.onnx': plain,
    'stale/policy.json': JSON.stringify(tied(other, 0.02)),
    'several/a.onnx': plain,
    'several/b.onnx': other,
    'data/notes.txt': '',
  });
  const start = (policies?: string[], folders = [folder]) =>
    createServer({ folders, port: 0, grpcPort: null, ...(policies && { policies }) });
  const settingsWith = async (policies?: string[]) => {
    const running = await start(policies);
    const found = running.repository
      .loaded()
      .map(({ name, version, setting, settings }) => [
        `${name} ${version}`,
        [setting.name, settings.map((one) => one.name).join()],
      ]);
    await running.close();
    return Object.fromEntries(found);
  };

  test('runs without being named, as careful as the file says; the bolder settings are there for requests', async () => {
    expect(await settingsWith()).toEqual({
      'plain 1': ['0.01', 'full,0.01,0.05'],
      'versions 1': ['model', 'full,model'],
      'versions 2': ['0.02', 'full,0.02'],
    });
  });

  test('is replaced by one that is named for its model, and by full and model for all', async () => {
    expect(await settingsWith([join(elsewhere, 'plain.json')])).toEqual({
      'plain 1': ['0.03', 'full,0.03'],
      'versions 1': ['0.03', 'full,0.03'],
      'versions 2': ['0.02', 'full,0.02'],
    });
    const all = (setting: string, settings: string) =>
      Object.fromEntries(['plain 1', 'versions 1', 'versions 2'].map((name) => [name, [setting, settings]]));
    expect(await settingsWith(['full'])).toEqual(all('full', 'full'));
    expect(await settingsWith(['model'])).toEqual(all('model', 'full,model'));
    expect(await settingsWith([join(elsewhere, 'plain.json'), 'full'])).toMatchObject({
      'versions 2': ['full', 'full'],
    });
  });

  test('is in the metadata and in each answer, with its promise', async () => {
    const running = await start();
    const parameters = {
      policy: '0.01',
      promise_limit: 0.01,
      promise_confidence: 0.95,
      promise_metric: 'disagreement',
    };
    const metadata = await (await fetch(`${running.url}/v2/models/plain`)).json();
    expect(metadata).toMatchObject({ name: 'plain', parameters });
    const { policy, promise } = await new Client(running.url).infer('plain', { input: batch(1) });
    await running.close();
    expect({ policy, promise }).toMatchObject({ policy: '0.01', promise: { limit: 0.01 } });
  });

  test('is an error if it was made for another model', async () => {
    const stale = join(elsewhere, 'stale');
    await expect(start(undefined, [stale])).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(new RegExp(`${stale}/policy.json.*${stale}/model.onnx.*'full'`)),
    });
    const running = await start(['full'], [stale]);
    await running.close();
  });

  test('a folder with several models says so; one without is no model', async () => {
    await expect(start(undefined, [join(elsewhere, 'several')])).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
      message: expect.stringMatching(/several: it holds several models \(a.onnx, b.onnx\)/),
    });
    await expect(start(undefined, [join(elsewhere, 'data')])).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('binds the workers of a queue', async () => {
    const bindingOf = async (options: { policy?: string; setting?: string }) => {
      const answerer = await Answerer.load(join(folder, 'plain'), { threads: 1, ...options });
      await answerer.release();
      return answerer.binding.setting;
    };
    expect(await bindingOf({})).toBe('0.01');
    expect(await bindingOf({ setting: '0.05' })).toBe('0.05');
    expect(await bindingOf({ policy: 'full' })).toBe('full');
    await expect(bindingOf({ setting: '0.2' })).rejects.toThrow(
      /policy.json doesn't have it; take one of 0.01, 0.05/,
    );
    const stale = Answerer.load(join(elsewhere, 'stale'), { threads: 1 });
    await expect(stale).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringContaining('stale/policy.json'),
    });
  });
});

describe('a promise that nothing tests', () => {
  const policy = promising(0.02, {});
  const folder = folderOf({
    'plain/model.onnx': means(false),
    'policy.json': JSON.stringify({ ...policy, promise: { ...policy.promise, metric: 'accuracy' } }),
  });
  const start = async (rest: object) => {
    const log: object[] = [];
    const running = await createServer({
      folders: [join(folder, 'plain')],
      ...{
        policies: [join(folder, 'policy.json')],
        port: 0,
        grpcPort: null,
        log: (entry: object) => log.push(entry),
      },
      ...rest,
    });
    const input = { name: 'input', datatype: 'FP32', shape: [1, 3, 4, 4], data: [...batch(1).data] };
    const answer = await fetch(`${running.url}/v2/models/plain/infer`, {
      method: 'POST',
      body: JSON.stringify({ inputs: [input] }),
    });
    const { parameters } = (await answer.json()) as { parameters: object };
    const metrics = await (await fetch(`${running.url}/metrics`)).text();
    await running.close();
    return { log, parameters, metrics };
  };

  test('is named in the log, in metrics and in answers', async () => {
    const { log, parameters, metrics } = await start({});
    expect(log).toEqual([
      {
        ...{ event: 'unwatched', model: 'plain', setting: '0.02', metric: 'accuracy', limit: 0.02 },
        reason: expect.stringContaining('labels'),
      },
    ]);
    expect(parameters).toMatchObject({ policy: '0.02', promise_metric: 'accuracy', promise_watched: false });
    expect(metrics).toMatch(/residual_skip_promise_watched\{.*setting="0.02"\} 0\n/);
  });

  test('is watched by the answers that it may change, if these are limited', async () => {
    const { log, parameters, metrics } = await start({ maxDisagreement: 0.05 });
    expect(log).toEqual([]);
    expect(parameters).toMatchObject({ promise_watched: true });
    expect(metrics).toMatch(/residual_skip_promise_watched\{.*setting="0.02"\} 1\n/);
  });
});

test('a request may bound the share of answers that skipping changes', async () => {
  const folder = folderOf({
    'plain/model.onnx': means(false),
    'policy.json': JSON.stringify({ ...promising(0.01, {}), settings: [promising(0.05, {})] }),
  });
  const running = await createServer({
    folders: [join(folder, 'plain')],
    ...{ policies: [join(folder, 'policy.json')], port: 0, grpcPort: null },
  });
  const ask = async (parameters: object) => {
    const input = { name: 'input', datatype: 'FP32', shape: [1, 3, 4, 4], data: [...batch(1).data] };
    const body = JSON.stringify({ parameters, inputs: [input] });
    const answer = await fetch(`${running.url}/v2/models/plain/infer`, { method: 'POST', body });
    const { parameters: given } = (await answer.json()) as { parameters?: { policy: string } };
    return given?.policy ?? answer.status;
  };
  const asked = [1, 0.05, 0.049, 0.01, 0.001, 0, -1, '0.01'];
  const policies: (string | number)[] = [];
  for (const limit of asked) policies.push(await ask({ max_disagreement: limit }));
  expect(policies).toEqual(['0.05', '0.05', '0.01', '0.01', 'full', 'full', 400, 400]);
  expect(await ask({ max_disagreement: 0.01, policy: '0.05' })).toBe(400);
  await running.close();
});

test('every setting is compiled before its first request, and the monitor sees nothing of that', async () => {
  const compile = jest.spyOn(NativeBackend.prototype, 'compile');
  const name = 'fashion-mnist-resnet26-exits';
  const folder = resolve('models', name);
  const { heads } = JSON.parse(readFileSync(join(folder, 'policy.json'), 'utf8'));
  const policy = promising(0.01, { heads });
  const files = folderOf({ 'policy.json': JSON.stringify({ ...policy, settings: [promising(0.05, {})] }) });
  const running = await createServer({
    ...{ folders: [folder], policies: [join(files, 'policy.json'), 'model'] },
    ...{ port: 0, grpcPort: null, shadow: 1 },
  });
  const [{ monitor } = { monitor: null }] = running.repository.loaded();
  const watches = [...monitor!.watches.values()];
  await Promise.all(watches.map((watch) => watch.settled()));
  expect(watches.map((watch) => watch.stats().watch.checks)).toEqual([0, 0]);
  const before = compile.mock.calls.length;
  expect(before).toBeGreaterThan(1);
  const digit = new Tensor('float32', new Float32Array(784), [1, 1, 28, 28]);
  for (const setting of ['full', '0.01', '0.05', 'model'])
    await new Client(running.url).infer(name, { input: digit }, { policy: setting });
  expect(compile).toHaveBeenCalledTimes(before);
  compile.mockRestore();
  await running.close();
});

test('a model that is loaded again stays ready meanwhile', async () => {
  const folder = folderOf({ 'again/model.onnx': means(false) });
  const states: string[][] = [];
  const repository = new ModelRepository([folder], async () => {
    states.push(repository.index().map(({ state }) => state));
    return { settings: [FULL], threads: 1, shadow: 0 };
  });
  await repository.loadAll();
  await repository.load('again');
  expect(states).toEqual([['LOADING'], ['READY']]);
  await repository.close();
});
