import { createHash } from 'node:crypto';
import type { Backend, CompiledProgram } from './backends/backend.js';
import type { Binding, Model } from './model/model.js';
import type { Program } from './model/program.js';
import { attachHeads, type Heads } from './skip/attach.js';
import type { ResolvedPolicy } from './skip/mode.js';
import { headsOf, resolvePolicy, type SkipPolicy } from './skip/policy.js';

/** A program of one binding, compiled, with the policies that were applied to it. */
export interface Specialization {
  readonly program: Program;
  readonly compiled: CompiledProgram;
  resolve(policy: SkipPolicy): ResolvedPolicy;
}

/** How many programs a session keeps; making one again costs about what `create` costs. */
const CAPACITY = 8;

function keyOf(binding: Binding): string {
  const parts = [...binding].map(([name, { shape, data }]) => {
    if (!data) return [name, shape];
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return [name, shape, createHash('sha256').update(bytes).digest('base64')];
  });
  return JSON.stringify(parts);
}

/** The programs of one model, compiled when first needed; the least recently used one goes first. */
export class Specializations {
  readonly #entries = new Map<string, Specialization>();
  readonly #headNumbers = new WeakMap<Heads, number>();
  #lastNumber = 0;
  #latest: Specialization | undefined;

  constructor(
    private readonly model: Model,
    private readonly backend: Backend,
    private readonly compile: (model: Model, binding: Binding) => Program,
  ) {}

  /** The one made or used last; undefined before the first. */
  get latest(): Specialization | undefined {
    return this.#latest;
  }

  /** With the heads that `policy` brings along built in. */
  get(binding: Binding, policy: SkipPolicy): Specialization {
    const heads = headsOf(policy);
    const key = `${heads ? this.#numberOf(heads) : ''}${keyOf(binding)}`;
    const entry = this.#entries.get(key) ?? this.#make(binding, heads);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.#latest = entry;
    if (this.#entries.size > CAPACITY) this.#dropOldest();
    return entry;
  }

  release(): void {
    for (const { compiled } of this.#entries.values()) compiled.release();
    this.#entries.clear();
  }

  /** Heads are kept apart by identity: a policy is parsed once. */
  #numberOf(heads: Heads): number {
    const known = this.#headNumbers.get(heads);
    if (known !== undefined) return known;
    this.#headNumbers.set(heads, ++this.#lastNumber);
    return this.#lastNumber;
  }

  #make(binding: Binding, heads: Heads | undefined): Specialization {
    const plain = this.compile(this.model, binding);
    const program = heads ? attachHeads(plain, heads) : plain;
    const resolved = new WeakMap<SkipPolicy, ResolvedPolicy>();
    const resolve = (policy: SkipPolicy): ResolvedPolicy => {
      const known = resolved.get(policy);
      if (known) return known;
      const made = resolvePolicy(policy, program, this.model.sha256);
      resolved.set(policy, made);
      return made;
    };
    return { program, compiled: this.backend.compile(program), resolve };
  }

  #dropOldest(): void {
    const [key, entry] = this.#entries.entries().next().value!;
    this.#entries.delete(key);
    entry.compiled.release();
  }
}
