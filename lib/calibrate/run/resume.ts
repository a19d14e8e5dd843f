/**
 * Makes calibrations resumable: a backend that keeps the results of each run in a folder, and reads them from there when
 * the same run is requested again. A run is named by the hash of everything that its results depend on (program with its
 * weights, backend, policy, inputs). Results of another model, other images or other heads are therefore never used for it, but a
 * calibration with another limit reuses the runs that it shares with an earlier one.
 */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Backend, CompiledProgram, RunRequest } from '../../backends/backend.js';
import { codeOfWriting, ResidualSkipError } from '../../errors.js';
import type { Program } from '../../model/program/program.js';
import { recalled } from '../../tensor/recall.js';
import type { TensorData } from '../../tensor/tensor.js';
import { packageVersion } from '../../util/version.js';

const KEPT = /^[0-9a-f]{64}\.(run|[0-9a-f-]{36})$/;
/** Bytes of the SHA-256 at the end of a file. */
const CHECKSUM = 32;

export class ResumableBackend implements Backend {
  readonly #digests = new WeakMap<TensorData, string>();
  #taken = 0;
  #computed = 0;

  private constructor(
    /** The backend that runs programs; it keeps nothing. */
    readonly engine: Backend,
    private readonly folder: string,
    /** Files that an earlier calibration left. */
    private readonly earlier: ReadonlySet<string>,
  ) {}

  /**
   * @param folder created if it doesn't exist
   * @throws ResidualSkipError INVALID_ARGUMENT, or WRITE_FAILED, when it can't be written
   */
  static async open(backend: Backend, folder: string): Promise<ResumableBackend> {
    try {
      await mkdir(folder, { recursive: true });
      return new ResumableBackend(backend, folder, new Set(await readdir(folder)));
    } catch (cause) {
      throw stateError(folder, cause);
    }
  }

  get name() {
    return this.engine.name;
  }

  get isa() {
    return this.engine.isa;
  }

  get threads() {
    return this.engine.threads;
  }

  /** Item runs whose results an earlier calibration left, and those computed now. */
  get counts(): { readonly taken: number; readonly computed: number } {
    return { taken: this.#taken, computed: this.#computed };
  }

  async compile(program: Program): Promise<CompiledProgram> {
    return this.compileSync(program);
  }

  /** Compiles when a run first needs it. Only results of `run` are kept, because `runSync` serves to measure times. */
  compileSync(program: Program): CompiledProgram {
    let digest: string | undefined;
    let compiled: CompiledProgram | undefined;
    const made = () => {
      compiled ??= this.engine.compileSync(program);
      return compiled;
    };
    return {
      run: async (request) => {
        digest ??= this.#digestOf(program);
        const name = `${keyOf(digest, request)}.run`;
        const file = join(this.folder, name);
        if (await restore(file, request)) {
          if (this.earlier.has(name)) this.#taken += request.items;
          return;
        }
        await made().run(request);
        this.#computed += request.items;
        await this.#keep(file, Buffer.concat(resultsOf(request)));
      },
      runSync: (request) => made().runSync(request),
      release: () => compiled?.release(),
    };
  }

  dropConstants(program: Program): void {
    this.engine.dropConstants(program);
  }

  release(): void {
    this.engine.release();
  }

  /**
   * The result of `make` for a program and some inputs, kept like the results of a run.
   * @param inputs everything else that the result depends on
   */
  async remember(
    program: Program,
    inputs: string,
    make: (engine: Backend) => Promise<string>,
  ): Promise<string> {
    const hash = createHash('sha256').update(`${this.#digestOf(program)}:${inputs}`);
    const file = join(this.folder, `${hash.digest('hex')}.run`);
    const known = await contentOf(file);
    if (known) return known.toString('utf8');
    const made = await make(this.engine);
    await this.#keep(file, Buffer.from(made));
    return made;
  }

  async #keep(file: string, content: Buffer): Promise<void> {
    const draft = `${file.slice(0, -'run'.length)}${randomUUID()}`;
    try {
      // The rename is last, so that a file under its own name is complete even if the process is killed.
      await writeFile(draft, Buffer.concat([content, createHash('sha256').update(content).digest()]));
      await rename(draft, file);
    } catch (cause) {
      throw stateError(this.folder, cause);
    }
  }

  #digestOf({ values, ...rest }: Program): string {
    const hash = createHash('sha256').update(`${packageVersion()} ${this.name}`);
    const described = values.map(({ dtype, shape, data, term }) => [
      dtype,
      shape,
      data && this.#dataDigest(data),
      // Heads read what bytes stand for.
      term,
    ]);
    // JSON has no infinities, but the bounds of an activation may be infinite.
    const exact = (_: string, value: unknown) =>
      typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
    return hash.update(JSON.stringify([described, rest], exact)).digest('hex');
  }

  #dataDigest(data: TensorData): string {
    const known = this.#digests.get(data);
    if (known !== undefined) return known;
    const made = createHash('sha256')
      .update(bytesOf(recalled(data)))
      .digest('hex');
    this.#digests.set(data, made);
    return made;
  }
}

/** Deletes the files that calibrations keep in a folder, and the folder if nothing else is in it. */
export async function forgetState(folder: string): Promise<void> {
  const files = (await readdir(folder)).filter((name) => KEPT.test(name));
  await Promise.all(files.map((name) => rm(join(folder, name), { force: true })));
  await rmdir(folder).catch(() => {});
}

function keyOf(program: string, { items, inputs, policy }: RunRequest): string {
  const hash: Hash = createHash('sha256').update(`${program}:${items}`);
  for (const data of [...inputs, policy.modes, policy.thresholds]) hash.update(bytesOf(data));
  return hash.digest('hex');
}

function bytesOf({ buffer, byteOffset, byteLength }: TensorData): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The buffers that a run fills, in the order of the file. */
function resultsOf({ outputs, outcomes, scores }: RunRequest): Uint8Array[] {
  return [...outputs, outcomes, scores].map(bytesOf);
}

/** The content of `file`; undefined when it is missing or incomplete. */
async function contentOf(file: string): Promise<Buffer | undefined> {
  const bytes = await readFile(file).catch(() => undefined);
  if (!bytes || bytes.length < CHECKSUM) return undefined;
  const content = bytes.subarray(0, -CHECKSUM);
  return createHash('sha256').update(content).digest().equals(bytes.subarray(-CHECKSUM))
    ? content
    : undefined;
}

/** Fills the results from `file`; false when it is missing or incomplete. */
async function restore(file: string, request: RunRequest): Promise<boolean> {
  const content = await contentOf(file);
  const results = resultsOf(request);
  const length = results.reduce((sum, part) => sum + part.length, 0);
  if (content?.length !== length) return false;
  let at = 0;
  for (const part of results) {
    part.set(content.subarray(at, at + part.length));
    at += part.length;
  }
  return true;
}

function stateError(folder: string, cause: unknown): ResidualSkipError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new ResidualSkipError(
    codeOfWriting(cause),
    `state: it can't be kept in ${folder} (${why}); name another folder with --state`,
    { cause },
  );
}
