import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');
const PROGRAMS = join(__dirname, 'programs');

function newest(folder: string): number {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return Math.max(
    ...entries.filter((e) => e.isFile()).map((e) => statSync(join(e.parentPath, e.name)).mtimeMs),
  );
}

function requireBuild(): void {
  const built = join(ROOT, 'dist/policy.schema.json');
  if (existsSync(built) && statSync(built).mtimeMs >= newest(join(ROOT, 'lib'))) return;
  throw new Error('dist is missing or older than lib; run `npm run compile` first');
}

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly files: readonly { readonly path: string }[];
}

/** The package as a user has it: packed, and laid beside its dependencies in a folder of its own. */
export class InstalledPackage {
  readonly folder = mkdtempSync(join(tmpdir(), 'residual-skip-'));
  readonly tarball: string;
  readonly size: number;
  readonly files: readonly string[];

  constructor() {
    requireBuild();
    const packed = JSON.parse(
      execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', this.folder], {
        cwd: ROOT,
        encoding: 'utf8',
      }),
    ) as Packed[];
    const { filename, size, files } = packed[0]!;
    this.tarball = join(this.folder, filename);
    this.size = size;
    this.files = files.map(({ path }) => path);
    this.#install();
  }

  get packageFolder(): string {
    return join(this.folder, 'node_modules/residual-skip');
  }

  /** Runs one of the `programs` in the folder where the package is installed. */
  run(program: string, ...args: string[]) {
    return this.node(join(this.folder, program), ...args);
  }

  node(...args: string[]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: this.folder,
      encoding: 'utf8',
      timeout: 120_000,
    });
    return { status, stdout, stderr };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #install(): void {
    mkdirSync(this.packageFolder, { recursive: true });
    execFileSync('tar', ['-xzf', this.tarball, '-C', this.packageFolder, '--strip-components=1']);
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>;
    };
    for (const name of [...Object.keys(manifest.dependencies), '@types/node']) {
      const link = join(this.folder, 'node_modules', name);
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync(join(ROOT, 'node_modules', name), link);
    }
    this.#addPrebuild();
    cpSync(PROGRAMS, this.folder, { recursive: true });
    cpSync(join(PROGRAMS, 'consumer.mts'), join(this.folder, 'consumer.cts'));
  }

  /** `npm run prebuild` is no part of a build: where it did not run, its place is taken by what node-gyp made. */
  #addPrebuild(): void {
    if (this.files.some((path) => path.startsWith(`prebuilds/${process.platform}-${process.arch}/`))) return;
    const folder = join(this.packageFolder, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(folder, { recursive: true });
    cpSync(join(ROOT, 'build/Release/residual_skip.node'), join(folder, 'residual-skip.node'));
  }
}
