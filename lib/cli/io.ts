import { inspect, styleText } from 'node:util';
import { SingleBar } from 'cli-progress';
import type { Progress as WorkProgress } from '../session/progress.js';

/** Where a command writes; tests pass their own. */
export interface Io {
  /** Results. */
  out(text: string): void;
  /** Errors and notes. */
  err(text: string): void;
  /** Whether results may be coloured. */
  readonly color: boolean;
  /** Whether the error stream is a terminal, where progress bars make sense. */
  readonly interactive: boolean;
  /** Where they don't: milliseconds from one line about progress to the next; without it there are none. */
  readonly lineMs?: number;
}

/** The process's own streams. Colour follows NO_COLOR, FORCE_COLOR and the terminal. */
export function processIo(): Io {
  const { stdout, stderr } = process;
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    color: stdout.isTTY === true && stdout.hasColors(),
    interactive: stderr.isTTY === true,
    lineMs: 10_000,
  };
}

const STYLES = ['bold', 'dim', 'green', 'blue', 'yellow'] as const;
export type Style = (typeof STYLES)[number];

/** `text` in a style, if the output supports colour. */
export function paint(io: Pick<Io, 'color'>, style: Style, text: string): string {
  // styleText must not check the stream: `io.color` has decided.
  return io.color ? styleText(style, text, { validateStream: false }) : text;
}

/** Control characters, line and paragraph separators, and characters that change the direction of text. */
const CONTROLS = /\p{Cc}|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;
/** The escape sequences of `paint`, which are kept. */
const PAINTED = new RegExp(
  `\u001b\\[(?:${STYLES.flatMap((style) => inspect.colors[style]).join('|')})m`,
  'y',
);

/**
 * `text` with control characters, except tabs and newlines, written as \u001b and the like, so that a name can't control
 * the terminal. In JSON, that notation means the same character.
 */
export function printable(text: string): string {
  return text.replace(CONTROLS, (control, at: number) => {
    PAINTED.lastIndex = at;
    if (control === '\n' || control === '\t' || PAINTED.test(text)) return control;
    return `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

export interface Progress {
  advance(): void;
  /** Sets both numbers, for a total that isn't known from the start. */
  show(value: number, total: number): void;
  stop(): void;
}

/** Progress on the error stream if it is `wanted`: a bar on a terminal, otherwise a line every few seconds. */
export function startProgress(io: Io, total: number, what: string, wanted: boolean): Progress {
  if (!wanted || total < 2) return { advance: () => {}, show: () => {}, stop: () => {} };
  const meter = startMeter(io, total, what);
  let done = 0;
  let most = total;
  const show = (value: number, sum: number) => {
    [done, most] = [value, sum];
    meter.show(done, most);
  };
  return { advance: () => show(done + 1, most), show, stop: meter.stop };
}

/** Options for long work: a meter for each stage, on the same conditions as startProgress, and notes on the error stream. */
export function watchWork(io: Io, wanted: boolean) {
  let meter: Meter | undefined;
  let shown: string | undefined;
  const stop = () => meter?.stop();
  const onProgress = ({ stage, done, total, network = '' }: WorkProgress) => {
    if (!wanted || total === null || total < 2) return;
    const what = `${stage[0]!.toUpperCase()}${stage.slice(1)} ${network}`.trimEnd();
    if (shown !== what) {
      stop();
      meter = startMeter(io, total, what);
      shown = what;
    }
    meter!.show(done, total);
  };
  return { stop, options: { onNote: (note: string) => io.err(`note: ${note}\n`), onProgress } };
}

type Meter = Pick<Progress, 'show' | 'stop'>;

function startMeter(io: Io, total: number, what: string): Meter {
  return io.interactive ? startBar(total, what) : startLines(io, what);
}

function startBar(total: number, what: string): Meter {
  const bar = new SingleBar({
    format: `${what} {bar} {value}/{total}  {eta_formatted} left`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: null,
    etaBuffer: 200,
  });
  bar.start(total, 0);
  return {
    show: (done, sum) => {
      bar.setTotal(sum);
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

/** A line for every `io.lineMs` that pass while something is left, so that short work prints none. */
function startLines({ err, lineMs }: Io, what: string): Meter {
  if (lineMs === undefined) return { show: () => {}, stop: () => {} };
  let start = performance.now();
  let [done, total] = [0, 0];
  const print = () => {
    if (done >= total) return;
    const left = done > 0 ? ((performance.now() - start) / done) * (total - done) : undefined;
    err(`${what}: ${done} of ${total}${left === undefined ? '' : `, about ${duration(left / 1000)} left`}\n`);
  };
  const timer = setInterval(print, lineMs).unref();
  return {
    show: (value, sum) => {
      if (value < done) start = performance.now();
      [done, total] = [value, sum];
    },
    stop: () => clearInterval(timer),
  };
}

/** "40 s", "3 min", "2 h". */
function duration(seconds: number): string {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 100 ? `${Math.ceil(minutes)} min` : `${Math.ceil(minutes / 60)} h`;
}
