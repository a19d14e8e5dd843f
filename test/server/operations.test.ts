import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'residual-skip-server';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';
import { promising } from '../helpers/policies.js';

afterAll(removeFolders);

/** A network with one operator. */
function network(operator: string): Uint8Array {
  const graph = new GraphBuilder();
  const pooled = graph.node('GlobalAveragePool', [graph.input('input', ['batch', 3, 4, 4])]);
  graph.nodes(operator, [graph.node('Flatten', [pooled])], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', 3]));
}
const tiedTo = (model: Uint8Array, limit: number) =>
  JSON.stringify(promising(limit, { model: { sha256: createHash('sha256').update(model).digest('hex') } }));

const ports = { port: 0, grpcPort: null };

test('a model that is loaded again has the policies as they are then', async () => {
  const [before, after] = [network('Neg'), network('Abs')];
  const folder = folderOf({ 'own/model.onnx': before, 'policy.json': tiedTo(before, 0.01) });
  const log: object[] = [];
  const server = await createServer({
    ...{ ...ports, folders: [join(folder, 'own')], policies: [join(folder, 'policy.json')] },
    log: (entry) => log.push(entry),
  });
  const setting = () => server.repository.get('own').setting.name;
  expect(setting()).toBe('0.01');
  writeFileSync(join(folder, 'own/model.onnx'), after);
  await server.repository.load('own');
  expect(setting()).toBe('full');
  expect(log.at(-1)).toMatchObject({ event: 'full', model: 'own' });
  writeFileSync(join(folder, 'policy.json'), tiedTo(after, 0.02));
  await server.repository.load('own');
  expect(setting()).toBe('0.02');
  await server.close();
});

test('a version that is broken or has vanished leaves the others alone', async () => {
  const own = network('Neg');
  const folder = folderOf({ 'own/1/model.onnx': own, 'own/2/model.onnx': own, 'own/3/model.onnx': 'broken' });
  const log: object[] = [];
  const server = await createServer({
    ...ports,
    folders: [join(folder, 'own')],
    log: (entry) => log.push(entry),
  });
  const states = () => server.repository.index().map(({ version, state }) => `${version} ${state}`);
  expect(states()).toEqual(['1 READY', '2 READY', '3 UNAVAILABLE']);
  expect(log).toMatchObject([{ event: 'load', model: 'own', error: expect.any(String) }]);
  rmSync(join(folder, 'own/2'), { recursive: true });
  mkdirSync(join(folder, 'own/4'));
  writeFileSync(join(folder, 'own/4/model.onnx'), own);
  await server.repository.load('own');
  expect(states()).toEqual(['1 READY', '3 UNAVAILABLE', '4 READY']);
  await server.close();
});

test('two folders of one name are an error; symbolic links are followed', async () => {
  const own = network('Neg');
  const folder = folderOf({ 'a/own/model.onnx': own, 'b/own/model.onnx': own, 'links/notes.txt': '' });
  await expect(
    createServer({ ...ports, folders: [join(folder, 'a'), join(folder, 'b')] }),
  ).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^model own: both .*a\/own and .*b\/own/),
  });
  symlinkSync(join(folder, 'a/own'), join(folder, 'links/linked'));
  const server = await createServer({ ...ports, folders: [join(folder, 'links')] });
  expect(server.repository.loaded().map(({ name }) => name)).toEqual(['linked']);
  await server.close();
});

test('connections that send nothing do not hold up the end of a server', async () => {
  const folder = folderOf({ 'own/model.onnx': network('Neg') });
  const server = await createServer({
    ...ports,
    grpcPort: 0,
    folders: [join(folder, 'own')],
    drainTimeout: 600_000,
  });
  const silent: Socket[] = [];
  for (const [port, text] of [
    [new URL(server.url).port, ''],
    [new URL(server.url).port, 'POST /v2 HTTP/1.1\r\nhost:'],
    [server.grpcAddress!.split(':')[1], ''],
    [server.grpcAddress!.split(':')[1], 'PRI * HTTP/2.0'],
  ]) {
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    await new Promise<void>((done) => socket.once('connect', () => done()));
    socket.write(text!);
    silent.push(socket);
  }
  // It would take ten minutes.
  await server.close();
  for (const socket of silent) socket.destroy();
});
