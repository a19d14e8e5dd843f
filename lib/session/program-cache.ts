import { createHash } from 'node:crypto';
import type { Backend, CompiledProgram } from '../backends/backend.js';
import { mayHaveExits } from '../model/exits.js';
import type { Binding, Model } from '../model/model.js';
import type { Program } from '../model/program.js';
import { attachHeads, type Heads, resolveHeads } from '../skip/attach.js';
import type { ResolvedPolicy } from '../skip/mode.js';
import { headsKey, headsOf, resolvePolicy, type SkipPolicy } from '../skip/policy.js';
import { ResultPool } from './results.js';

/** A program of one binding, compiled, with the policies that were applied to it. */
export interface Specialization {
  readonly program: Program;
  readonly compiled: CompiledProgram;
  readonly results: ResultPool;
  resolve(policy: SkipPolicy): ResolvedPolicy;
}

/** How many programs a session keeps; making one again costs about what `create` costs. */
const CAPACITY = 8;

interface Fed {
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

/** The programs of one model, compiled when first needed; the least recently used one goes first. */
export class Specializations {
  readonly #entries = new Map<string, Specialization>();
  /** Under way, so that runs that need the same one share it. */
  readonly #making = new Map<string, Promise<Specialization>>();
  /** Used last, and so the last in the order of use. */
  #latest: Specialization | undefined;
  /** Made for `programOf` alone. */
  #described: { readonly key: string; readonly program: Program } | undefined;
  /** The first: stays for good. */
  #declared:
    | { readonly binding: string; readonly plain: Program; readonly entry: Specialization }
    | undefined;
  /** Otherwise one program serves all policies without heads. */
  readonly #mayHaveExits: boolean;
  /** No binding but the declared one is asked for. */
  #only = false;

  constructor(
    private readonly model: Model,
    private readonly backend: Backend,
    private readonly compile: (model: Model, binding: Binding) => Program,
  ) {
    this.#mayHaveExits = mayHaveExits(model.graph);
  }

  /** Whether the model's declared shapes leave nothing open. */
  get hasDeclared(): boolean {
    return this.#declared !== undefined;
  }

  /**
   * Makes the one that the model's declared shapes stand for, before any other.
   * @param only no other binding will be asked for: the backend may free the model's constants
   */
  async declare(binding: Binding, policy: SkipPolicy, only: boolean): Promise<Specialization> {
    const heads = headsOf(policy);
    const plain = this.compile(this.model, binding);
    const program = grown(plain, heads);
    const entry = this.#entry(program, await this.backend.compile(program));
    this.#declared = { binding: keyOf(binding), plain, entry };
    this.#only = only;
    if (only) this.backend.dropConstants(plain);
    return this.#keep(this.#keyOf({ binding }, policy), entry);
  }

  /** The one that is there, with the heads that `policy` brings along built in; undefined when it has to be made. */
  find(feeds: Fed, policy: SkipPolicy): Specialization | undefined {
    const key = this.#keyOf(feeds, policy);
    const entry = this.#entries.get(key);
    return entry && this.#keep(key, entry);
  }

  /** As `find`, or made without holding the event loop while weights are packed. */
  async get(feeds: Fed, policy: SkipPolicy): Promise<Specialization> {
    const key = this.#keyOf(feeds, policy);
    const entry = this.#entries.get(key) ?? (await (this.#making.get(key) ?? this.#make(key, feeds, policy)));
    return this.#keep(key, entry);
  }

  getSync(feeds: Fed, policy: SkipPolicy): Specialization {
    const known = this.find(feeds, policy);
    if (known) return known;
    const program = this.#program(feeds, policy);
    return this.#keep(this.#keyOf(feeds, policy), this.#entry(program, this.backend.compileSync(program)));
  }

  /** The program alone, to be described: it need not have run, and this does not count as use. */
  programOf(feeds: Fed, policy: SkipPolicy): Program {
    const key = this.#keyOf(feeds, policy);
    const entry = this.#entries.get(key);
    if (entry) return entry.program;
    if (this.#described?.key !== key) this.#described = { key, program: this.#program(feeds, policy) };
    return this.#described.program;
  }

  release(): void {
    for (const { compiled } of this.#entries.values()) compiled.release();
    this.#entries.clear();
  }

  async #make(key: string, feeds: Fed, policy: SkipPolicy): Promise<Specialization> {
    const program = this.#program(feeds, policy);
    const making = this.backend.compile(program).then((compiled) => {
      const faster = this.#entries.get(key);
      if (faster) compiled.release();
      return faster ?? this.#entry(program, compiled);
    });
    this.#making.set(key, making);
    try {
      return await making;
    } finally {
      this.#making.delete(key);
    }
  }

  #program({ binding }: Fed, policy: SkipPolicy): Program {
    const declared = this.#declared?.binding === keyOf(binding) ? this.#declared.plain : undefined;
    return grown(declared ?? this.compile(this.model, binding), headsOf(policy));
  }

  #keyOf(feeds: Fed, policy: SkipPolicy): string {
    const heads = this.#mayHaveExits || policy.heads ? headsKey(policy) : '';
    return `${heads}${this.#only ? '' : keyOf(feeds.binding)}`;
  }

  #entry(program: Program, compiled: CompiledProgram): Specialization {
    const resolved = new WeakMap<SkipPolicy, ResolvedPolicy>();
    const resolve = (policy: SkipPolicy): ResolvedPolicy => {
      const known = resolved.get(policy);
      if (known) return known;
      const made = resolvePolicy(policy, program, this.model.sha256);
      resolved.set(policy, made);
      return made;
    };
    return { program, compiled, results: new ResultPool(program), resolve };
  }

  /** Puts `entry` last in the order of use. */
  #keep(key: string, entry: Specialization): Specialization {
    if (entry === this.#latest) return entry;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.#latest = entry;
    if (this.#entries.size > CAPACITY) this.#dropOldest();
    return entry;
  }

  #dropOldest(): void {
    const [key, entry] = [...this.#entries].find(([, each]) => each !== this.#declared?.entry)!;
    this.#entries.delete(key);
    entry.compiled.release();
  }
}

function grown(plain: Program, heads: Heads | undefined): Program {
  const resolved = resolveHeads(plain, heads);
  return resolved ? attachHeads(plain, resolved) : plain;
}
