/**
 * Programs in the manner of onnxruntime's JavaScript examples, compiled and run as they are, with onnxruntime-node, and again
 * with this package in the import. Runs of onnxruntime-node need it (as bench/package.json installs it, or where
 * RESIDUAL_SKIP_ONNXRUNTIME says); types are those of onnxruntime-common without it.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { describeBuilt } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes } from '../helpers/onnx-builder.js';

const ROOT = resolve(__dirname, '../..');
const SAMPLES = join(__dirname, 'samples');
const RUNTIME = process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
const PEER = 'onnxruntime-node';
const NAMES = readdirSync(SAMPLES).sort();
/** Largest difference of an element, as a fraction of the largest in its list. */
const TOLERANCE = 1e-5;

const hasRuntime = existsSync(RUNTIME);
const compared = hasRuntime ? test : test.skip;
afterAll(removeFolders);

function matmul(): Uint8Array {
  const graph = new GraphBuilder();
  const [a, b] = [graph.input('a', [3, 4]), graph.input('b', [4, 3])];
  graph.nodes('MatMul', [a, b], {}, { outputs: ['c'] });
  return modelBytes(graph.output('c', [3, 3]));
}

/** A project with the samples, whose imports name `peer`. */
class Project {
  readonly #folder = folderOf({});

  constructor(peer: string, target: string) {
    const modules = join(this.#folder, 'node_modules');
    mkdirSync(join(modules, '@types'), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(modules, '@types/node'));
    symlinkSync(target, join(modules, peer));
    for (const name of NAMES) {
      const source = readFileSync(join(SAMPLES, name), 'utf8');
      expect(source.split(`'${PEER}'`)).toHaveLength(2);
      writeFileSync(join(this.#folder, name), source.replace(`'${PEER}'`, `'${peer}'`));
    }
    const compilerOptions = {
      ...{ strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true },
      ...{ target: 'es2022', module: 'nodenext', types: ['node'], outDir: 'built', skipLibCheck: true },
    };
    writeFileSync(join(this.#folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*'] }));
  }

  /** @returns what the compiler says */
  compile(): string {
    const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
    const { status, stdout } = spawnSync(process.execPath, [compiler], {
      cwd: this.#folder,
      encoding: 'utf8',
    });
    return status === 0 ? '' : stdout;
  }

  run(sample: string, models: string): unknown {
    const program = join(this.#folder, 'built', sample.replace(/ts$/, 'js'));
    const args = [program, models];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: this.#folder,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(stderr);
    return JSON.parse(stdout);
  }
}

function expectAlike(own: unknown, expected: unknown): void {
  if (
    Array.isArray(expected) &&
    expected.length > 0 &&
    expected.every((value) => typeof value === 'number')
  ) {
    const most = Math.max(...expected.map(Math.abs));
    const list = own as number[];
    expect(list).toHaveLength(expected.length);
    for (const [i, value] of expected.entries()) {
      expect(Math.abs(list[i]! - value)).toBeLessThanOrEqual(TOLERANCE * most);
    }
  } else if (typeof expected === 'object' && expected !== null) {
    expect(Object.keys(own as object)).toEqual(Object.keys(expected));
    for (const [key, value] of Object.entries(expected)) expectAlike(Reflect.get(own as object, key), value);
  } else if (typeof expected === 'number') expect(own).toBeCloseTo(expected, 5);
  else expect(own).toEqual(expected);
}

describeBuilt('code written for onnxruntime-node', () => {
  const models = folderOf({ 'matmul.onnx': matmul() });
  copyFileSync(join(ROOT, 'demo/model.onnx'), join(models, 'demo.onnx'));
  const asIs = new Project(PEER, hasRuntime ? RUNTIME : join(ROOT, 'node_modules/onnxruntime-common'));
  const changed = new Project('residual-skip', ROOT);
  let compiled: { readonly asIs: string; readonly changed: string };
  beforeAll(() => {
    compiled = { asIs: asIs.compile(), changed: changed.compile() };
  });

  test('is ten programs that compile, whichever of the two packages they import', () => {
    expect(NAMES).toHaveLength(10);
    expect(compiled).toEqual({ asIs: '', changed: '' });
  });

  test.each(NAMES)('%s runs on this package', (name) => {
    const answer = JSON.stringify(changed.run(name, models));
    // What samples find out about themselves.
    expect(answer).toMatch(/\d/);
    expect(answer).not.toMatch(/null|"failed":[^}]*false|"(disposed|refused)":false/);
  });

  compared.each(NAMES)('%s gives the same answers on both', (name) => {
    expectAlike(changed.run(name, models), asIs.run(name, models));
  });
});
