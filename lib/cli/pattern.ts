import type { BlockDecision, ItemTrace } from '../skip/trace.js';
import { type Io, paint } from './io.js';

type Fate = 'fixed' | 'ran' | 'skipped';

function fateOf({ ran, reason }: BlockDecision): Fate {
  if (!ran) return 'skipped';
  return reason === 'gate' ? 'ran' : 'fixed';
}

const ASCII: Record<Fate, string> = { fixed: '#', ran: '1', skipped: '.' };
const SYMBOLS: Record<Fate, string> = { fixed: '#', ran: '█', skipped: '·' };
const STYLES = { fixed: 'blue', ran: 'green', skipped: 'dim' } as const;

/**
 * One character per block, in order: `#` ran without a gate's decision (it can't be skipped, or the policy makes it
 * run), `1` ran because its gate decided so, `.` was skipped.
 */
export function asciiPattern(trace: ItemTrace): string {
  return trace.blocks.map((block) => ASCII[fateOf(block)]).join('');
}

/**
 * The same pattern for tables: `#`, `█` and `·`.
 * @param stages indices of blocks that begin a stage (their shortcut changes the shape); a space is put before each
 */
export function drawPattern(io: Pick<Io, 'color'>, trace: ItemTrace, stages: ReadonlySet<number>): string {
  return trace.blocks
    .map((block, i) => {
      const fate = fateOf(block);
      return (i > 0 && stages.has(i) ? ' ' : '') + paint(io, STYLES[fate], SYMBOLS[fate]);
    })
    .join('');
}

/** @param gated whether any block has a gate */
export function patternLegend(io: Pick<Io, 'color'>, gated: boolean): string {
  const entry = (fate: Fate, text: string) => `${paint(io, STYLES[fate], SYMBOLS[fate])} ${text}`;
  const byGate = gated ? [entry('ran', 'ran by its gate')] : [];
  return [entry('fixed', 'ran'), ...byGate, entry('skipped', 'skipped')].join('   ');
}
