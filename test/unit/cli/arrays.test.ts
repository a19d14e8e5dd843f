/** Commands on tensors by input, from NumPy's files and raw elements. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { isArrayFile, readArrays } from 'lib/data/arrays.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { bytesOf, npy, stacked, zip } from '../../helpers/arrays.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { untimed } from '../../helpers/policies.js';
import { taskItems, taskNetwork } from '../../helpers/task-networks.js';

afterAll(removeFolders);

const PORTS = [{ name: 'x', type: 'float32', shape: ['n', 3] }] as const;
const valuesOf = async (file: Buffer, name: string, ports: Parameters<typeof readArrays>[1] = PORTS) =>
  (await readArrays(join(folderOf({ [name]: file }), name), ports, {})).map(({ feeds }) =>
    Object.fromEntries(
      Object.entries(feeds).map(([input, { type, dims, data }]) => [input, { type, dims, data: [...data] }]),
    ),
  );

test('arrays of NumPy itself', async () => {
  const folder = folderOf({});
  const script = [
    'import numpy as np, sys',
    'a = np.arange(6, dtype=np.float64).reshape(2, 3)',
    "np.save(sys.argv[1] + '/a.npy', a)",
    "np.savez(sys.argv[1] + '/b.npz', x=a.astype(np.float32), ids=np.array([[1], [-2]]), label=np.array([1, 0]))",
    "np.savez_compressed(sys.argv[1] + '/c.npz', x=np.asfortranarray(a[:, :1]), ids=np.zeros((2, 5), np.uint8))",
  ].join('\n');
  try {
    execFileSync('/usr/bin/python3', ['-c', script, folder], { stdio: 'ignore' });
  } catch {
    // Machines without NumPy have the files below, which are written by the specification.
    return;
  }
  const rows = await readArrays(join(folder, 'a.npy'), PORTS, {});
  expect(rows.map(({ feeds }) => [feeds.x!.type, [...feeds.x!.data]])).toEqual([
    ['float32', [0, 1, 2]],
    ['float32', [3, 4, 5]],
  ]);
  const two = [...PORTS, { name: 'ids', type: 'int64', shape: ['n', 1] }] as const;
  const labelled = await readArrays(join(folder, 'b.npz'), two, {});
  expect(labelled.map(({ feeds, label }) => [feeds.ids!.type, [...feeds.ids!.data], label])).toEqual([
    ['int64', [1n], 1],
    ['int64', [-2n], 0],
  ]);
  const packed = await readArrays(join(folder, 'c.npz'), two, {});
  expect(packed.map(({ feeds }) => feeds.ids!.dims)).toEqual([
    [1, 5],
    [1, 5],
  ]);
});

test('arrays by the specification', async () => {
  const floats = bytesOf(Float32Array.of(1, 2, 3, 4, 5, 6));
  const rows = [
    { x: { type: 'float32', dims: [1, 3], data: [1, 2, 3] } },
    { x: { type: 'float32', dims: [1, 3], data: [4, 5, 6] } },
  ];
  expect(await valuesOf(npy('<f4', [2, 3], floats), 'a.npy')).toEqual(rows);
  for (const deflated of [false, true]) {
    expect(await valuesOf(zip({ 'x.npy': npy('<f4', [2, 3], floats) }, deflated), 'a.npz')).toEqual(rows);
  }
  expect(await valuesOf(Buffer.from(floats.subarray(0, 12)), 'a.raw')).toEqual([rows[0]]);
  expect([isArrayFile('a.NPY'), isArrayFile('b.npz'), isArrayFile('c.txt')]).toEqual([true, true, false]);
});

const FLOATS = bytesOf(Float32Array.of(1, 2, 3));
test.each<[string, Buffer, string, RegExp]>([
  ['no array', Buffer.from('hello'), 'a.npy', /it is no \.npy file/],
  [
    'too few elements',
    npy('<f4', [2, 3], FLOATS),
    'a.npy',
    /has 12 bytes of elements, but 6 of type float32 are 24/,
  ],
  ['big-endian numbers', npy('>f4', [1, 3], FLOATS), 'a.npy', /of type >f4; expected one of <f2, <f4/],
  ['objects', npy('|O', [1, 3], FLOATS), 'a.npy', /of type \|O/],
  ['columns', npy('<f4', [1, 3], FLOATS, true), 'a.npy', /order of Fortran; write numpy\.ascontiguousarray/],
  ['no archive', Buffer.from('hello'), 'a.npz', /it is no \.npz file/],
  [
    'a damaged archive',
    zip({ 'x.npy': npy('<f4', [1, 3], FLOATS) }, true).fill(255, 31, 60),
    'a.npz',
    /damaged/,
  ],
  [
    'another input',
    zip({ 'y.npy': npy('<f4', [1, 3], FLOATS) }, false),
    'a.npz',
    /no array 'x', which the network takes; it has y/,
  ],
  ['no item', npy('<f4', [0, 3], FLOATS.subarray(0, 0)), 'a.npy', /of length 0; expected one length/],
  [
    'raw elements of another size',
    Buffer.from(FLOATS.subarray(0, 8)),
    'a.raw',
    /8 bytes of elements, but 3 of type float32 are 12/,
  ],
])('refuses %s', async (_, file, name, message) => {
  await expect(valuesOf(file, name)).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(message),
  });
});

test('refuses more than the limit before it unpacks', async () => {
  const file = zip({ 'x.npy': npy('<f4', [1, 3000], new Uint8Array(12_000)) }, true);
  const folder = folderOf({ 'a.npz': file });
  await expect(readArrays(folder, PORTS, { maxBytes: 5000 })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(/more than the limit of 5000 bytes/),
  });
});

test('calibrate, eval, record and replay take pairs of inputs from a file, as code takes them from an iterable', async () => {
  const folder = folderOf({ 'net.onnx': taskNetwork('pair'), 'all.npz': zip(stacked('pair', 500), true) });
  const [model, data, output] = ['net.onnx', 'all.npz', 'policy.json'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const engine = ['--threads', '1'];
  await cliJson('calibrate', model, '--data', data, '-o', output, '--max-disagreement', '0.1', ...engine);
  const policy = JSON.parse(readFileSync(output, 'utf8')) as SkipPolicy;
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  const given = await calibrate(model, taskItems('pair', 500, 3), { threads: 1, maxDisagreement: 0.1 });
  expect(untimed(given.policy)).toEqual(untimed(policy));

  writeFileSync(join(folder, 'fresh.npz'), zip(stacked('pair', 60, 8), false));
  const fresh = ['--data', join(folder, 'fresh.npz'), '--policy', output, ...engine];
  const told = await cliJson('eval', model, ...fresh);
  expect(told).toMatchObject({ items: 60, skip: { loss: { metric: 'disagreement', limit: 0.1 } } });
  const log = join(folder, 'log.jsonl');
  expect(await cliJson('record', model, '-o', log, ...fresh)).toMatchObject({ written: 60 });
  expect(await cliJson('replay', log, ...fresh)).toMatchObject({ recorded: 60, replayed: 60, identical: 60 });
});

test('a map is calibrated, evaluated, and named in the promise', async () => {
  const folder = folderOf({ 'net.onnx': taskNetwork('map'), 'all.npz': zip(stacked('map', 400), false) });
  const [model, data, output] = ['net.onnx', 'all.npz', 'policy.json'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const asked = ['--metric', 'relative', '--max-disagreement', '0.1', '--threads', '1'];
  const { code, out } = await cli('calibrate', model, '--data', data, '-o', output, ...asked);
  expect({ code, out }).toEqual({
    code: 0,
    out: expect.stringMatching(/the mean relative error of the output is at most 10\.00 %/),
  });
  const { out: table } = await cli('eval', model, '--data', data, '--policy', output, '--threads', '1');
  expect(table).toMatch(/promised loss \(relative\) .* limit 10\.00 %/);
  expect(table).toMatch(/: 400 items, native backend/);
});

test('without a task, the command names its option', async () => {
  const folder = folderOf({ 'net.onnx': taskNetwork('map'), 'all.npz': zip(stacked('map', 3), false) });
  const [model, data] = ['net.onnx', 'all.npz'].map((name) => join(folder, name)) as [string, string];
  const { code, err } = await cli('calibrate', model, '--data', data, '-o', join(folder, 'p.json'));
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringMatching(/^residual-skip: task: nothing says .* --task/),
  });
});
