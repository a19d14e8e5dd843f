import { writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Command } from 'commander';
import { addServeOptions, completeOptions, serveConfigSchema } from 'lib/cli/serve-options.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

/** Options as `serve` sees them. */
function complete(args: readonly string[], environment: Record<string, string> = {}, config?: unknown) {
  const folder = folderOf({});
  const file = join(folder, 'config.json');
  if (config !== undefined) writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
  const command = addServeOptions(new Command('serve')).exitOverride();
  let completed: ReturnType<typeof completeOptions> | undefined;
  command.action((folders: string[]) => {
    completed = completeOptions(folders, command, environment);
  });
  command.parse([...args, ...(config === undefined ? [] : ['--config', file])], { from: 'user' });
  return completed!;
}

test('the command line comes before the environment, and that before the file', () => {
  const config = { folders: ['c'], port: 1, grpcPort: 2, host: 'c', targetP99: '1s', audit: 'records' };
  const environment = { RESIDUAL_SKIP_PORT: '11', RESIDUAL_SKIP_GRPC_PORT: 'false', RESIDUAL_SKIP_HOST: 'e' };
  const { folders, options } = complete(['--host', 'a'], environment, config);
  expect(folders).toEqual(['c']);
  expect(options).toMatchObject({
    host: 'a',
    port: 11,
    grpcPort: false,
    targetP99: 1000,
    audit: 'records',
    maxWaiting: 1024,
  });
  expect(complete(['f'], { RESIDUAL_SKIP_FOLDERS: 'e' }, config).folders).toEqual(['f']);
});

test('values of the environment and the file are read like those of the command line', () => {
  const environment = {
    RESIDUAL_SKIP_FOLDERS: ['a', 'b'].join(delimiter),
    RESIDUAL_SKIP_POLICY: ['p.json', 'full'].join(delimiter),
    RESIDUAL_SKIP_INSECURE: 'false',
    RESIDUAL_SKIP_AUDIT_KEEP: '30d',
    RESIDUAL_SKIP_AUDIT_ROTATE: '2MB',
    RESIDUAL_SKIP_AUDIT_SIZE: '1GB',
  };
  const { folders, options } = complete([], environment);
  expect(folders).toEqual(['a', 'b']);
  expect(options).toMatchObject({
    ...{ policy: ['p.json', 'full'], insecure: false, auditKeep: 30 * 24 * 60 * 60 * 1000 },
    ...{ auditRotate: { maxBytes: 2 * 2 ** 20 }, auditSize: 2 ** 30 },
  });
  expect(complete(['a'], {}, { auditRotate: '12h' }).options.auditRotate).toEqual({
    maxAge: 12 * 60 * 60 * 1000,
  });
});

test('variables that Kubernetes sets for a service called residual-skip are not options', () => {
  const environment = {
    RESIDUAL_SKIP_PORT: 'tcp://10.0.0.1:8000',
    RESIDUAL_SKIP_PORT_8000_TCP: 'tcp://10.0.0.1:8000',
    RESIDUAL_SKIP_PORT_8000_TCP_PORT: '8000',
    RESIDUAL_SKIP_SERVICE_HOST: '10.0.0.1',
    RESIDUAL_SKIP_SERVICE_PORT: '8000',
    RESIDUAL_SKIP_SERVICE_PORT_GRPC: '8001',
  };
  expect(complete(['f'], environment).options).toMatchObject({ port: 8000, host: '127.0.0.1' });
});

test.each<[string, Record<string, string>, unknown, RegExp]>([
  [
    'a misspelt variable',
    { RESIDUAL_SKIP_TARGT_P99: '2s' },
    {},
    /TARGT_P99: .*did you mean 'RESIDUAL_SKIP_TARGET_P99'/,
  ],
  [
    'a size without a unit',
    { RESIDUAL_SKIP_AUDIT_SIZE: '5' },
    undefined,
    /RESIDUAL_SKIP_AUDIT_SIZE: it must be a size such as/i,
  ],
  ['an unknown key, with the near one', {}, { grpcport: 1 }, /unknown key 'grpcport'.*grpcPort/],
  ['a value of another type', {}, { port: 'x' }, /port: /],
  ['a port out of range', {}, { port: 70000 }, /port: it must be a port/i],
  ['a file that is no JSON', {}, '{', /config .*can't be read/],
  [
    'a variable that is no number',
    { RESIDUAL_SKIP_THREADS: 'two' },
    undefined,
    /RESIDUAL_SKIP_THREADS: .*received 'two'/,
  ],
  [
    'a flag that is neither',
    { RESIDUAL_SKIP_INSECURE: '' },
    undefined,
    /RESIDUAL_SKIP_INSECURE: it must be true or false/,
  ],
  [
    'another choice',
    { RESIDUAL_SKIP_AUDIT_INPUTS: 'all' },
    undefined,
    /AUDIT_INPUTS: it must be one of hash, store, none/,
  ],
])('%s is refused', (_what, environment, config, message) => {
  expect(() => complete(['a'], environment, config)).toThrow(message);
});

test('without folders anywhere, it says so', () => {
  expect(() => complete([])).toThrow(/folders: none is given/);
});

test('the schema names every option of the command', () => {
  const { options } = addServeOptions(new Command('serve'));
  const names = new Set(options.map((option) => option.attributeName()));
  names.delete('config');
  expect(Object.keys(serveConfigSchema.shape).sort()).toEqual(['$schema', 'folders', ...names].sort());
});
