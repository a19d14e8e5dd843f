import { ResidualSkipError } from '../../errors.js';

/** An element in the list. */
interface Link<T> {
  /** Undefined for the end, which closes the list to a ring. */
  readonly element: T | undefined;
  before: Link<T>;
  after: Link<T>;
  /** Grows along the list. */
  label: number;
}

/** Different elements in order. Changes and `position` take no time for the length of the list. */
export class OrderedList<T extends object> {
  private readonly end: Link<T>;
  private readonly links = new Map<T, Link<T>>();
  private list: readonly T[] | undefined;

  constructor() {
    const end = { element: undefined, label: 0 } as Link<T>;
    end.before = end.after = end;
    this.end = end;
  }

  get all(): readonly T[] {
    if (!this.list) {
      const list: T[] = [];
      for (let at = this.end.after; at.element; at = at.after) list.push(at.element);
      this.list = list;
    }
    return this.list;
  }

  /** A number that grows along the list. */
  position(element: T): number {
    return this.linkOf(element).label;
  }

  next(element: T): T | undefined {
    return this.linkOf(element).after.element;
  }

  /** Puts `element` before `next`, or at the end. */
  insert(element: T, next: T | undefined): void {
    const after = next ? this.linkOf(next) : this.end;
    const { before } = after;
    const label = after.element ? (before.label + after.label) / 2 : before.label + 1;
    const link = { element, before, after, label };
    before.after = link;
    after.before = link;
    this.links.set(element, link);
    // Halves of halves end after some fifty insertions at one place.
    if (label === before.label || label === after.label) this.relabel();
    this.list = undefined;
  }

  remove(element: T): void {
    const { before, after } = this.linkOf(element);
    before.after = after;
    after.before = before;
    this.links.delete(element);
    this.list = undefined;
  }

  private linkOf(element: T): Link<T> {
    const link = this.links.get(element);
    if (!link) throw new ResidualSkipError('INTERNAL', 'operation: it is not in the region');
    return link;
  }

  private relabel(): void {
    let label = 0;
    for (let at = this.end.after; at.element; at = at.after) at.label = ++label;
  }
}
