/** A map of at most `max` entries: the one that was used longest ago goes first, and is disposed of. */
export class LruMap<V> {
  /** In the order of use. */
  readonly #entries = new Map<string, V>();

  constructor(
    private readonly max: number,
    private readonly dispose: (value: V) => void = () => {},
  ) {}

  get(key: string): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** As `get`, and it does not count as use. */
  peek(key: string): V | undefined {
    return this.#entries.get(key);
  }

  /** `key` must be a new one. */
  set(key: string, value: V): void {
    this.#entries.set(key, value);
    if (this.#entries.size <= this.max) return;
    const [oldest, dropped] = this.#entries.entries().next().value!;
    this.#entries.delete(oldest);
    this.dispose(dropped);
  }

  clear(): void {
    for (const value of this.#entries.values()) this.dispose(value);
    this.#entries.clear();
  }
}
