/** What lies between values of a region. Each search spends the region's effort. */
import type { ValueId } from '../program/program.js';
import type { Region, WorkOp } from './region.js';

/** The operations that `output` needs and that need `input`, in order. */
export function between(region: Region, input: ValueId, output: ValueId): WorkOp[] {
  const needed = ancestors(region, output, input);
  const reached = new Set<WorkOp>();
  for (const op of [...needed].sort((a, b) => region.position(a) - region.position(b))) {
    const reads = region.reads(op);
    if (reads.some((id) => id === input || reached.has(region.producer(id)!))) reached.add(op);
  }
  return [...reached];
}

/** The operations that `id` needs; if `since` is given, only those after its producer. */
export function ancestors(region: Region, id: ValueId, since?: ValueId): Set<WorkOp> {
  const origin = since === undefined ? undefined : region.producer(since);
  const floor = origin ? region.position(origin) : Number.NEGATIVE_INFINITY;
  const found = new Set<WorkOp>();
  const pending = [id];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const producer = region.producer(next);
    if (!producer || found.has(producer) || region.position(producer) <= floor) continue;
    found.add(producer);
    const reads = region.reads(producer);
    region.effort.spend(1 + reads.length);
    for (const read of reads) pending.push(read);
  }
  return found;
}

/** Whether `id` is computed from `ancestor` (or is it). */
export function dependsOn(region: Region, id: ValueId, ancestor: ValueId): boolean {
  if (id === ancestor) return true;
  for (const op of ancestors(region, id, ancestor)) if (region.reads(op).includes(ancestor)) return true;
  return false;
}
