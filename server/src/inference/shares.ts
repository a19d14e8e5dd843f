/** Users whose level is remembered. */
const MAX_USERS = 4096;

/**
 * What each user of a resource has had of it, so that the one with least is next (start-time fair queueing, Goyal et al. 1996). A
 * user gains no credit while it waits for nothing: it then starts at the level of the one that was served last.
 */
export class Shares {
  readonly #levels = new Map<string, number>();
  #now = 0;

  /** What the user has had. */
  of(user: string): number {
    return this.#levels.get(user) ?? this.#now;
  }

  /** Is called when a user that waited for nothing begins to wait. */
  enter(user: string): void {
    this.#set(user, Math.max(this.of(user), this.#now));
  }

  /** Is called when a user that waits is served. */
  serve(user: string): void {
    this.#now = Math.max(this.#now, this.of(user));
  }

  add(user: string, amount: number): void {
    this.#set(user, this.of(user) + amount);
  }

  #set(user: string, level: number): void {
    // The first is the one that was set the longest ago.
    this.#levels.delete(user);
    this.#levels.set(user, level);
    if (this.#levels.size <= MAX_USERS) return;
    const [oldest] = this.#levels.keys();
    this.#levels.delete(oldest!);
  }
}
