/**
 * What the documentation shows, done as a user does it: with the packed package, in a project of its own, without network.
 * Every example runs, and every snippet and command of the README and of pages about use, but those that NOT_RUN names.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { delimiter, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import sharp from 'sharp';
import { commandsOf, inLanguage, type Snippet, snippetsOf } from '../helpers/snippets.js';
import { randomTexts } from '../helpers/text-network.js';
import { InstalledPackage } from './installed.js';

jest.setTimeout(600_000);

const ROOT = resolve(__dirname, '../..');
/** Instead of the 1 % of the pages, which takes five times as many images to certify. */
const LIMIT = 0.05;
/** What the example that calibrates leaves behind: the same calibration goes on from it. */
const STATE = 'policy.json.state';
const DEMO = 'node_modules/residual-skip/demo';
const EXAMPLES = readdirSync(join(ROOT, 'examples')).filter((name) => /\.[cm]?[jt]s$/.test(name));

/**
 * Pages whose commands run here, and those whose programs do. Other pages have commands that train, measure, or need servers: tests
 * of their own run them, or test/unit/docs looks whether what they name exists.
 */
const WITH_COMMANDS = ['README.md', 'examples/README.md', 'docs/audit.md', 'docs/cli.md'];
const WITH_PROGRAMS = [
  'README.md',
  'demo/README.md',
  ...['audit', 'calibration', 'errors', 'observers', 'policies'].map((name) => `docs/${name}.md`),
];

/**
 * Commands that are not run here: the packed package is installed instead, .ci/run has two as its steps, and
 * test/server/command.test.ts runs those with curl.
 */
const NOT_RUN = [
  ['README.md', 'npm install residual-skip sharp'],
  ['README.md', 'curl -s localhost:8000/v2/models/cifar10-resnet14-exits'],
  ['README.md', 'npm ci && npm start'],
  ['README.md', 'npm ci && npm test'],
];

const titleOf = ({ page, line }: Snippet) => `${page}:${line}`;
const PROGRAMS = WITH_PROGRAMS.flatMap(snippetsOf)
  .filter(inLanguage('js'))
  .map((snippet) => [titleOf(snippet), snippet] as const);
const POLICIES = WITH_PROGRAMS.flatMap(snippetsOf)
  .filter(inLanguage('json'))
  .map((snippet) => [titleOf(snippet), snippet] as const);
const COMMANDS = WITH_COMMANDS.flatMap(snippetsOf)
  .filter(inLanguage('sh'))
  .flatMap((snippet) => commandsOf(snippet).map((command) => [snippet.page, command] as const));
const isNotRun = (command: readonly string[]) => NOT_RUN.some((other) => `${other}` === `${command}`);
const RUN = COMMANDS.filter((command) => !isNotRun(command));

let installed: InstalledPackage;
let environment: NodeJS.ProcessEnv;
beforeAll(async () => {
  installed = new InstalledPackage();
  const { folder } = installed;
  mkdirSync(join(folder, 'node_modules/@huggingface'), { recursive: true });
  for (const name of ['sharp', 'vega', 'vega-lite', '@huggingface/tokenizers']) {
    symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
  }
  for (const name of EXAMPLES) cpSync(join(ROOT, 'examples', name), join(folder, name));
  symlinkSync(join(ROOT, 'examples'), join(folder, 'examples'));
  cpSync(join(ROOT, 'models'), join(folder, 'models'), { recursive: true });
  const rows = randomTexts(20, 1).map((text, i) => `${text}\t${i % 2}\n`);
  for (const name of ['reviews.tsv', 'dev.tsv'])
    writeFileSync(join(folder, name), ['sentence\tlabel\n', ...rows].join(''));
  await writeImages(join(folder, 'some-images'), 4);
  await writeImages(join(folder, 'many-images'), 50);
  environment = { ...process.env, PATH: [writeCommand(folder), process.env.PATH].join(delimiter) };
});
afterAll(() => installed?.remove());

/** The digits of the demo network, shifted: a folder for each class. */
async function writeImages(folder: string, shifts: number): Promise<void> {
  for (const label of ['3', '5', '7']) {
    mkdirSync(join(folder, label), { recursive: true });
    const border = { top: 7, left: 7, right: 7, bottom: 7, background: 'black' };
    const padded = await sharp(join(ROOT, `demo/digit-${label}.png`))
      .extend(border)
      .png()
      .toBuffer();
    for (let shift = 0; shift < shifts; shift++) {
      const part = { left: shift % 15, top: Math.floor(shift / 15), width: 28, height: 28 };
      await sharp(padded)
        .extract(part)
        .toFile(join(folder, label, `${shift}.png`));
    }
  }
}

/**
 * `residual-skip` as a global installation has it. The server is a package that isn't installed here: the checkout's runs.
 * @returns the folder for PATH
 */
function writeCommand(folder: string): string {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const main = join(installed.packageFolder, 'dist/cli/main.js');
  const served = join(ROOT, 'dist/cli/main.js');
  const script = `#!/bin/sh\n[ "$1" = serve ] && exec node ${served} "$@"\nexec node ${main} "$@"\n`;
  writeFileSync(join(bin, 'residual-skip'), script);
  chmodSync(join(bin, 'residual-skip'), 0o755);
  return bin;
}

function clean(): void {
  for (const name of ['trace.ndjson', 'policy.json', 'report.html', 'profile.json']) {
    rmSync(join(installed.folder, name), { force: true });
  }
}

describe('examples', () => {
  it('are all listed', () => {
    const listed = [...readFileSync(join(ROOT, 'examples/README.md'), 'utf8').matchAll(/^\| \[([^\]]+)\]/gm)];
    expect(listed.map(([, name]) => name).sort()).toEqual([...EXAMPLES].sort());
  });

  function runs(name: string, ...args: string[]): string {
    const { status, stdout, stderr } = installed.run(name, ...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return stdout;
  }

  it('folder.mjs', () => {
    writeFileSync(join(installed.folder, 'not-an-image.txt'), '');
    expect(runs('folder.mjs').split('\n')).toEqual([
      'digit-3.png\t3\t0.925\t####.....',
      'digit-5.png\t5\t0.851\t#########',
      'digit-7.png\t7\t0.805\t####.####',
      '3 images, 18.4 % of the multiply-adds skipped',
      '',
    ]);
  });

  it('workers.mjs', () => {
    const answers = runs('workers.mjs').trim().split('\n').sort();
    expect(answers).toEqual(
      ['3', '5', '7'].map((digit) => expect.stringContaining(`digit-${digit}.png ${digit} 0.`)),
    );
  });

  it('audit.mjs', () => {
    clean();
    expect(runs('audit.mjs')).toBe(
      '3 answers checked, 0 differ, not tripped\n3 items recorded, 0 lines changed or damaged\n3 of 3 replayed with the same bits\n',
    );
  });

  it('calibrate.mjs', () => {
    const lines = runs('calibrate.mjs', 'models/mnist-resnet20', 'many-images', `${LIMIT}`)
      .trim()
      .split('\n');
    expect(lines).toContain('calibrating ...');
    expect(lines.at(-2)).toMatch(
      /^at most 5\.0 % of the answers change, with 95\.0 % confidence \(\d+ images\)$/,
    );
    const saved = Number(/^([\d.]+) % of the multiply-adds skipped/.exec(lines.at(-1)!)![1]);
    expect(saved).toBeGreaterThan(10);
  });

  it('migrate.mjs', () => {
    expect(runs('migrate.mjs')).toBe('[ 1, 10 ]\nAbortError\n3 blocks ran; in full 9\n');
  });

  it('commonjs.cjs', () => {
    expect(runs('commonjs.cjs')).toBe('[ 1, 10 ] 6 blocks skipped\n');
  });

  it('server.mjs', async () => {
    const server = spawn(process.execPath, ['server.mjs', DEMO, '0'], { cwd: installed.folder });
    let stderr = '';
    server.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    const [line] = (await once(createInterface({ input: server.stdout }), 'line')) as [string];
    const url = line.replace('listening on ', '');
    const post = (body: Buffer) => fetch(url, { method: 'POST', body });
    const good = await post(readFileSync(join(ROOT, 'demo/digit-7.png')));
    const answer = (await good.json()) as { top: { label: string }[]; skipped: string[] };
    expect([good.status, answer.top[0]!.label, answer.skipped.length]).toEqual([200, '7', 1]);
    expect((await post(Buffer.from('no image'))).status).toBe(400);
    expect((await post(Buffer.alloc(17e6))).status).toBe(413);
    server.kill('SIGTERM');
    const [code] = await once(server, 'exit');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  it.each(['nodenext', 'bundler'])('typescript.mts, strict and resolved as %s', (resolution) => {
    const module = resolution === 'bundler' ? 'es2022' : 'nodenext';
    const flags = [
      '--strict',
      '--exactOptionalPropertyTypes',
      '--noUncheckedIndexedAccess',
      '--skipLibCheck',
      'false',
    ];
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
    const how = ['--target', 'es2022', '--module', module, '--moduleResolution', resolution];
    const args = [tsc, ...flags, ...how, '--types', 'node', 'typescript.mts'];
    const options = { cwd: installed.folder, encoding: 'utf8' } as const;
    expect(execFileSync(process.execPath, args, options)).toBe('');
    const lines = runs('typescript.mjs').trim().split('\n');
    expect(lines).toHaveLength(11);
    expect(lines[10]).toBe("INVALID_ARGUMENT feeds: the model has no input 'inptu'; did you mean 'input'?");
  });
});

describe('snippets', () => {
  it.each(PROGRAMS)('%s runs', (_, snippet) => {
    clean();
    writeFileSync(
      join(installed.folder, 'snippet.mjs'),
      snippet.code
        .replaceAll("'model.onnx'", `'${DEMO}/model.onnx'`)
        .replaceAll("'models/resnet'", "'models/mnist-resnet20'")
        .replaceAll("'images'", "'many-images'")
        .replace('\n  maxDisagreement: 0.01', `\n  maxDisagreement: ${LIMIT}, state: '${STATE}'`),
    );
    const { status, stdout, stderr } = installed.run('snippet.mjs');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const end = snippet.line + snippet.code.split('\n').length;
    const printed = snippetsOf(snippet.page).find(
      ({ line, language }) => language === '' && line > end && line <= end + 3,
    );
    if (printed) expect(stdout.trim()).toBe(printed.code);
  });

  it('the first of the README says what it prints', () => {
    const [first, second, third] = snippetsOf('README.md');
    expect([first, second, third].map((snippet) => snippet!.language)).toEqual(['sh', 'js', '']);
  });

  it.each(POLICIES)('%s is a policy of the demo network', (_, { code }) => {
    writeFileSync(join(installed.folder, 'policy.json'), code);
    const program =
      `require('residual-skip').InferenceSession.create('${DEMO}/model.onnx', { policy: 'policy.json' })` +
      '.then((session) => session.release())';
    expect(installed.node('-e', program)).toEqual({ status: 0, stdout: '', stderr: '' });
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A command with real values in the places of those that stand for the user's. */
function filledIn(command: string): string {
  return command
    .replaceAll(/\[(-[^\]]*)\]/g, '$1')
    .replaceAll(
      /\b(IMAGES|LABELLED|DIR)\b/g,
      /^residual-skip (calibrate|speedup)/.test(command) ? 'many-images' : 'some-images',
    )
    .replace('--max-disagreement 0.01', `--max-disagreement ${LIMIT}`)
    .replaceAll(/\bMODEL\b/g, 'models/mnist-resnet20')
    .replaceAll(/\bN\b/g, '1');
}

describe('commands', () => {
  it('that are not run are there', () => {
    expect(COMMANDS.filter(isNotRun)).toEqual(NOT_RUN);
    const steps = readFileSync(join(ROOT, '.ci/run'), 'utf8');
    for (const step of ['npm ci', 'npm start', 'npm test']) expect(steps).toContain(`step '${step}' ${step}`);
  });

  /** Until it answers. */
  async function serve(command: string): Promise<void> {
    const port = await freePort();
    const args = ['-c', `exec ${command} --port ${port} --no-grpc-port`];
    const server = spawn('bash', args, { cwd: installed.folder, env: environment, stdio: 'ignore' });
    const ready = () =>
      fetch(`http://localhost:${port}/v2/health/ready`).then(
        ({ ok }) => ok,
        () => false,
      );
    while (!(await ready())) {
      expect(server.exitCode).toBeNull();
      await setTimeout(50);
    }
    server.kill();
    await once(server, 'exit');
  }

  let last = '';
  it.each(RUN)('%s: %s', async (page, command) => {
    if (page !== last) clean();
    last = page;
    if (command.startsWith('residual-skip serve')) return serve(command);
    const options = { cwd: installed.folder, env: environment, encoding: 'utf8', timeout: 500_000 } as const;
    const { status, stdout, stderr } = spawnSync('bash', ['-c', filledIn(command)], options);
    const text = expect.any(String);
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: text, stderr: text });
  });
});
