import { createHash } from 'node:crypto';
import type { Backend, CompiledProgram, OnPacked } from '../backends/backend.js';
import { inPrecision, type Precision, type Program } from '../model/program/program.js';
import type { Binding } from '../model/read/model.js';
import { attachExits } from '../skip/attach.js';
import { CompiledPolicy, partsOf } from '../skip/compiled-policy.js';
import { resolveExits } from '../skip/exits.js';
import type { RunContext } from '../skip/observer.js';
import type { SkipPolicy } from '../skip/policy.js';
import { recalled } from '../tensor/recall.js';
import { copyData } from '../tensor/tensor.js';
import { LruMap } from '../util/lru-map.js';
import { keepRecent } from '../util/maps.js';
import { atOnce, inTurns, type Sliced } from '../util/slices.js';
import type { LoadedFront } from './fronts.js';
import { joining } from './known-fronts.js';
import type { Network } from './network.js';
import { ResultPool } from './outputs.js';

/** The compiled program of one binding, with the policies that were applied to it. */
export interface CachedProgram {
  readonly program: Program;
  readonly compiled: CompiledProgram;
  readonly results: ResultPool;
  /** What observers are told of its runs, by the policy that was asked for. */
  readonly contexts: Map<SkipPolicy, RunContext>;
  resolve(policy: SkipPolicy): CompiledPolicy;
}

/** Programs that a session keeps besides the declared one: one for each length that most text models take. */
const CAPACITY = 128;

/** What a program is compiled for; built on demand. */
interface Bound {
  readonly binding: Binding;
}

function keyOf(binding: Binding): string {
  let key = '';
  for (const [name, { shape, data }] of binding) {
    key += `${JSON.stringify(name)}[${shape.join()}]`;
    if (!data) continue;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    key += createHash('sha256').update(bytes).digest('base64');
  }
  return key;
}

/** The programs of one network, compiled when first needed; the least recently used one is dropped first. */
export class ProgramCache {
  readonly #entries = new LruMap<CachedProgram>(CAPACITY, ({ compiled }) => compiled.release());
  readonly #exitsKeys = new Map<SkipPolicy, string>();
  /** Compilations in progress, so that runs that need the same program share one. */
  readonly #making = new Map<string, Promise<CachedProgram>>();
  /** The program made for `programOf` alone. */
  #described: { readonly key: string; readonly program: Program } | undefined;
  /** The program of the declared shapes, with the exits of the session's policy; kept until `release`. */
  #declared:
    | {
        readonly key: string;
        readonly binding: string;
        readonly plain: Program;
        readonly entry: CachedProgram;
      }
    | undefined;
  /** Whether only the declared binding is used. */
  #only = false;

  constructor(
    private readonly network: Network,
    private readonly backend: Backend,
    private readonly onProgram?: (program: Program) => void,
    private readonly fronts: readonly LoadedFront[] = [],
    private readonly precision?: Precision,
  ) {}

  /** Whether the model declares all shapes. */
  get hasDeclared(): boolean {
    return this.#declared !== undefined;
  }

  /**
   * Compiles the program of the model's declared shapes, before any other.
   * @param only no other binding will be used: the backend may free the model's constants
   */
  async declare(
    binding: Binding,
    policy: SkipPolicy,
    only: boolean,
    onPacked?: OnPacked,
  ): Promise<CachedProgram> {
    const bound = await this.#inTurns(binding);
    const plain = only ? withOwnExits(bound) : bound;
    const program = grown(plain, policy);
    const entry = this.#entry(program, await this.backend.compile(program, onPacked));
    this.#only = only;
    this.#declared = { key: this.#keyOf({ binding }, policy), binding: keyOf(binding), plain, entry };
    if (only) this.backend.dropConstants(plain);
    else this.backend.forgetConstants?.(program);
    return entry;
  }

  /** The cached program, with the exits of `policy` built in; undefined if it must be compiled. */
  find(bound: Bound, policy: SkipPolicy): CachedProgram | undefined {
    const key = this.#keyOf(bound, policy);
    return key === this.#declared?.key ? this.#declared.entry : this.#entries.get(key);
  }

  /** Like `find`, but compiles if necessary, without blocking the event loop while weights are packed. */
  async get(bound: Bound, policy: SkipPolicy): Promise<CachedProgram> {
    const known = this.find(bound, policy);
    if (known) return known;
    const key = this.#keyOf(bound, policy);
    return this.#making.get(key) ?? this.#make(key, bound, policy);
  }

  getSync(bound: Bound, policy: SkipPolicy): CachedProgram {
    const known = this.find(bound, policy);
    if (known) return known;
    const program = this.#program(bound, policy);
    const entry = this.#keep(this.#keyOf(bound, policy), program, this.backend.compileSync(program));
    this.backend.forgetConstants?.(program);
    return entry;
  }

  /** The program alone, for descriptions: it need not be compiled, and this does not count as use. */
  programOf(bound: Bound, policy: SkipPolicy): Program {
    const key = this.#keyOf(bound, policy);
    if (key === this.#declared?.key) return this.#declared.entry.program;
    const entry = this.#entries.peek(key);
    if (entry) return entry.program;
    if (this.#described?.key !== key) this.#described = { key, program: this.#program(bound, policy) };
    return this.#described.program;
  }

  release(): void {
    this.#declared?.entry.compiled.release();
    this.#entries.clear();
  }

  async #make(key: string, bound: Bound, policy: SkipPolicy): Promise<CachedProgram> {
    const making = this.#compile(key, bound, policy);
    this.#making.set(key, making);
    try {
      return await making;
    } finally {
      this.#making.delete(key);
    }
  }

  async #compile(key: string, { binding }: Bound, policy: SkipPolicy): Promise<CachedProgram> {
    const plain = this.#plain(binding) ?? (await this.#inTurns(binding));
    const program = grown(plain, policy);
    const compiled = await this.backend.compile(program);
    const faster = this.#entries.get(key);
    if (faster) compiled.release();
    const entry = faster ?? this.#keep(key, program, compiled);
    this.backend.forgetConstants?.(program);
    return entry;
  }

  #program({ binding }: Bound, policy: SkipPolicy): Program {
    return grown(this.#plain(binding) ?? atOnce(this.#compiling(binding)), policy);
  }

  /** The declared program, if it is that of `binding`. */
  #plain(binding: Binding): Program | undefined {
    return this.#declared?.binding === keyOf(binding) ? this.#declared.plain : undefined;
  }

  #inTurns(binding: Binding): Promise<Program> {
    return inTurns(this.#compiling(binding));
  }

  *#compiling(binding: Binding): Sliced<Program> {
    const own = yield* this.network.compiling(binding);
    this.onProgram?.(own);
    const program = yield* joining(own, this.fronts, binding);
    return inPrecision(program, this.precision);
  }

  #keyOf(bound: Bound, policy: SkipPolicy): string {
    const heads = this.network.mayHaveExits || policy.heads ? this.#exitsKeyOf(policy) : '';
    return `${heads}${this.#only ? '' : keyOf(bound.binding)}`;
  }

  #exitsKeyOf(policy: SkipPolicy): string {
    const known = this.#exitsKeys.get(policy);
    return known ?? keepRecent(this.#exitsKeys, policy, partsOf(policy).exitsKey);
  }

  #entry(program: Program, compiled: CompiledProgram): CachedProgram {
    const resolved = new Map<SkipPolicy, CompiledPolicy>();
    const resolve = (policy: SkipPolicy): CompiledPolicy =>
      resolved.get(policy) ??
      keepRecent(resolved, policy, new CompiledPolicy(policy, program, () => this.network.model.sha256));
    return { program, compiled, results: new ResultPool(program), contexts: new Map(), resolve };
  }

  #keep(key: string, program: Program, compiled: CompiledProgram): CachedProgram {
    const entry = this.#entry(program, compiled);
    this.#entries.set(key, entry);
    return entry;
  }
}

/**
 * The program, with copies of its exits' constants where they are views of the file's memory: that is freed with the program's own
 * constants, and a later policy may use exits that nothing has packed yet.
 */
function withOwnExits(program: Program): Program {
  const { ownExits } = program;
  if (!ownExits) return program;
  const freed = new Set(program.values.map(({ data }) => data?.buffer));
  const values = ownExits.values.map((value) =>
    value.data && freed.has(value.data.buffer) ? { ...value, data: copyData(recalled(value.data)) } : value,
  );
  return { ...program, ownExits: { ...ownExits, values } };
}

function grown(plain: Program, policy: SkipPolicy): Program {
  const exits = resolveExits(plain, partsOf(policy).exits);
  return exits.length === 0 ? plain : attachExits(plain, exits);
}
