import type { BlockDecision, ItemTrace } from '../skip/trace.js';
import { type Io, paint } from './io.js';

type Fate = 'fixed' | 'ran' | 'skipped';

function fateOf({ ran, reason }: BlockDecision): Fate {
  if (!ran) return 'skipped';
  return reason === 'gate' || reason === 'confidence' ? 'ran' : 'fixed';
}

const ASCII: Record<Fate, string> = { fixed: '#', ran: '1', skipped: '.' };
const SYMBOLS: Record<Fate, string> = { fixed: '#', ran: '█', skipped: '·' };
const STYLES = { fixed: 'blue', ran: 'green', skipped: 'dim' } as const;

/**
 * One character per block, in order: `#` ran without being asked (it can't be skipped, or the policy says so),
 * `1` ran because its gate said so, `.` skipped.
 */
export function asciiPattern(trace: ItemTrace): string {
  return trace.blocks.map((block) => ASCII[fateOf(block)]).join('');
}

/**
 * The pattern to look at: `#`, `█` and `·` for the same three.
 * @param stages indices of blocks that begin a stage (their shortcut changes shape); a space goes before them
 */
export function drawPattern(io: Pick<Io, 'color'>, trace: ItemTrace, stages: ReadonlySet<number>): string {
  return trace.blocks
    .map((block, i) => {
      const fate = fateOf(block);
      return (i > 0 && stages.has(i) ? ' ' : '') + paint(io, STYLES[fate], SYMBOLS[fate]);
    })
    .join('');
}

export function patternLegend(io: Pick<Io, 'color'>): string {
  const entry = (fate: Fate, text: string) => `${paint(io, STYLES[fate], SYMBOLS[fate])} ${text}`;
  return [entry('fixed', 'always runs'), entry('ran', 'ran by its gate'), entry('skipped', 'skipped')].join(
    '   ',
  );
}
