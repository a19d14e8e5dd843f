/** How often each of several operations reads a value. */
class Counts<Op> extends Map<Op, number> {
  /** Of all of them together. */
  count = 0;

  addReader(op: Op, times: number): this {
    this.count += times;
    return this.set(op, (this.get(op) ?? 0) + times);
  }

  removeReader(op: Op): void {
    this.count -= this.get(op) ?? 0;
    this.delete(op);
  }
}

/** Which operations read each value, and how often. */
export class Readers<Id, Op extends object> {
  /** Of each value: the operation that reads it, if it is read once, or all. */
  private readonly uses = new Map<Id, Op | Counts<Op>>();

  /** The values that are read. */
  values(): Iterable<Id> {
    return this.uses.keys();
  }

  of(id: Id): Iterable<readonly [Op, number]> {
    const uses = this.uses.get(id);
    if (uses instanceof Counts) return uses;
    return uses ? [[uses, 1]] : [];
  }

  /** Each operation as often as it reads the value. */
  list(id: Id): readonly Op[] {
    const uses = this.uses.get(id);
    if (!(uses instanceof Counts)) return uses ? [uses] : [];
    const list: Op[] = [];
    for (const [op, times] of uses) for (let i = 0; i < times; i++) list.push(op);
    return list;
  }

  count(id: Id): number {
    const uses = this.uses.get(id);
    return uses instanceof Counts ? uses.count : Number(uses !== undefined);
  }

  /** @returns whether nothing has read the value before */
  add(id: Id, op: Op, times: number): boolean {
    const uses = this.uses.get(id);
    if (uses instanceof Counts) {
      uses.addReader(op, times);
      return false;
    }
    if (!uses && times === 1) this.uses.set(id, op);
    else {
      const counts = new Counts<Op>();
      if (uses) counts.addReader(uses, 1);
      this.uses.set(id, counts.addReader(op, times));
    }
    return !uses;
  }

  /** Takes away all reads of an operation. @returns whether nothing reads the value any more, and this did */
  remove(id: Id, op: Op): boolean {
    const uses = this.uses.get(id);
    if (uses instanceof Counts) uses.removeReader(op);
    if (uses instanceof Counts ? uses.count > 0 : uses !== op) return false;
    return this.uses.delete(id);
  }
}
