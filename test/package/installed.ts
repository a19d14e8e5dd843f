import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';

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

/** The package as a user has it: packed, and installed by `npm ci` with a lock file into a project of its own. */
export class InstalledPackage {
  readonly folder = mkdtempSync(join(tmpdir(), 'residual-skip-'));
  readonly tarball: string;
  readonly serverTarball: string;
  readonly size: number;
  /** Paths in the tarball. */
  readonly files: readonly string[];

  constructor() {
    requireBuild();
    // The gate of a release hands its own tarballs in.
    const given = process.env.RSKIP_TARBALLS;
    const packed = given ?? join(this.folder, 'packed');
    if (!given) this.#exec(process.execPath, [join(ROOT, 'scripts/package.mjs'), '--local', packed]);
    const tarballs = readdirSync(packed).filter((name) => name.endsWith('.tgz'));
    const main = tarballs.find((name) => /^residual-skip-\d/.test(name))!;
    this.tarball = join(packed, main);
    this.serverTarball = join(packed, tarballs.find((name) => name.startsWith('residual-skip-server-'))!);
    this.size = statSync(this.tarball).size;
    this.files = this.#exec('tar', ['-tzf', this.tarball])
      .trim()
      .split('\n')
      .map((path) => path.replace('package/', ''));
    this.#install(
      packed,
      tarballs.filter((name) => ![this.tarball, this.serverTarball].includes(join(packed, name))),
    );
  }

  get packageFolder(): string {
    return join(this.folder, 'node_modules/residual-skip');
  }

  /** The installed packages: their folders in node_modules, with their size in bytes. */
  get packages(): ReadonlyMap<string, number> {
    const sizes = new Map<string, number>();
    const visit = (modules: string) => {
      const names = readdirSync(join(this.folder, modules)).filter((name) => !name.startsWith('.'));
      for (const name of names.flatMap((name) =>
        name.startsWith('@')
          ? readdirSync(join(this.folder, modules, name)).map((part) => `${name}/${part}`)
          : [name],
      )) {
        const folder = join(modules, name);
        if (lstatSync(join(this.folder, folder)).isSymbolicLink()) continue;
        const inner = join(folder, 'node_modules');
        if (existsSync(join(this.folder, inner))) visit(inner);
        const files = readdirSync(join(this.folder, folder), { recursive: true, withFileTypes: true });
        const own = files.filter(
          (e) => e.isFile() && !relative(join(this.folder, folder), e.parentPath).startsWith('node_modules'),
        );
        sizes.set(
          folder,
          own.reduce((sum, e) => sum + statSync(join(e.parentPath, e.name)).size, 0),
        );
      }
    };
    visit('node_modules');
    return sizes;
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

  #exec(command: string, args: readonly string[]): string {
    return execFileSync(command, args, {
      cwd: this.folder,
      encoding: 'utf8',
      // As in the workflow of a release.
      env: { GITHUB_REPOSITORY: 'owner/residual-skip', ...process.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** `npm install` makes the lock file and `npm ci` installs by it. The platforms' packages are no part of the registry yet. */
  #install(packed: string, platforms: readonly string[]): void {
    const overrides = platforms.map((file) => [
      file.replace(/-\d+\.\d+\.\d+.*/, ''),
      `file:${join(packed, file)}`,
    ]);
    const manifest = {
      private: true,
      dependencies: { 'residual-skip': `file:${this.tarball}` },
      overrides: Object.fromEntries(overrides),
    };
    writeFileSync(join(this.folder, 'package.json'), JSON.stringify(manifest));
    this.#exec('npm', ['install', '--package-lock-only', '--no-audit', '--no-fund', '--prefer-offline']);
    this.#exec('npm', ['ci', '--no-audit', '--no-fund', '--prefer-offline']);
    const types = join(this.folder, 'node_modules/@types/node');
    mkdirSync(dirname(types), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules/@types/node'), types);
    cpSync(PROGRAMS, this.folder, { recursive: true });
    cpSync(join(PROGRAMS, 'consumer.mts'), join(this.folder, 'consumer.cts'));
  }
}
