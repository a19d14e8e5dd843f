// What the measuring scripts share: inputs, turns, tables, and parts of pages.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { processIo, startProgress } from '../dist/cli/io.js';
import { Tensor } from '../dist/index.js';

/** Zeros for every input; symbolic dimensions other than the batch count as `open`. */
export function feedsOf({ inputMetadata }, open = 224, batch = 1) {
  return Object.fromEntries(
    inputMetadata.map(({ name, type, shape }) => {
      const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? batch : open));
      const size = dims.reduce((product, length) => product * length, 1);
      return [name, new Tensor(type, Array(size).fill(type === 'bool' ? false : 0), dims)];
    }),
  );
}

/** Milliseconds that `action` takes. */
export async function timed(action) {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

/** Runs of a small network are timed in groups, because of the timer's resolution. */
const SLICE_MS = 20;
/** What a turn of takeTurns warms up for before it counts: code, branches and caches are those of another variant. */
const WARM_MS = 10;

/**
 * The median CPU time of one synchronous run of each of two sessions, which take turns, and the median ratio of the second's to
 * the first's. CPU time is least affected by other processes. A turn is first, second, second, first, and an untimed run precedes
 * each. A session that runs after the other one finds its weights gone from the caches: if the order weren't balanced within each
 * turn, one of the two would be ahead by it.
 */
export function compareSessions(sessions, feeds, turns) {
  const slice = (session, runs) => {
    session.runSync(feeds);
    const { user } = process.cpuUsage();
    for (let i = 0; i < runs; i++) session.runSync(feeds);
    return (process.cpuUsage().user - user) / 1000 / runs;
  };
  for (const session of sessions) slice(session, 1);
  const runs = Math.max(1, Math.round(SLICE_MS / 2 / Math.max(0.01, slice(sessions[0], 3))));
  const pairs = [];
  for (let turn = 0; turn < turns; turn++) {
    const times = [0, 0];
    for (const index of [0, 1, 1, 0]) times[index] += slice(sessions[index], runs) / 2;
    pairs.push(times);
  }
  const [firstMs, secondMs] = [0, 1].map((index) => median(pairs.map((times) => times[index])));
  return { firstMs, secondMs, ratio: median(pairs.map(([first, second]) => second / first)) };
}

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Consecutive items per runner before the next runner's turn, so that each has its weights in the caches. */
const ITEMS = 10;

/**
 * Alternates runners over the items; returns each runner's milliseconds per item and passes answers to `seen`. Adds to a runner's
 * `turns` the wall-clock and the CPU milliseconds of each of its turns, the CPU's those of the process.
 */
export async function alternate(runners, items, seen = () => {}, advance = () => {}) {
  const times = runners.map(() => []);
  for (let start = 0; start < items.length; start += ITEMS) {
    const turn = items.slice(start, start + ITEMS);
    for (let k = 0; k < runners.length; k++) {
      const index = (k + start / ITEMS) % runners.length;
      await runners[index].run(turn[0].tensor);
      const cpu = process.cpuUsage();
      for (const [i, { tensor }] of turn.entries()) {
        const before = performance.now();
        const answer = await runners[index].run(tensor);
        times[index].push(performance.now() - before);
        seen(index, start + i, answer);
      }
      const { user, system } = process.cpuUsage(cpu);
      const ms = times[index].slice(-turn.length).reduce((a, b) => a + b, 0);
      runners[index].turns ??= [];
      runners[index].turns.push({ ms, cpuMs: (user + system) / 1000 });
    }
    advance(turn.length);
  }
  return times;
}

/** `count` runs one after the other, as a variant of takeTurns does them. */
export const inRow = (run) => async (count) => {
  for (let i = 0; i < count; i++) await run();
};
/** The same without giving way to the event loop. */
export const inRowSync = (run) => (count) => {
  for (let i = 0; i < count; i++) run();
};

/**
 * Measures variants `{ title, runs(count) }`, which take turns. Adds to their `turns` the wall-clock and the CPU milliseconds
 * of one run in each turn. The order moves on by one in each round, and is reversed once it has been through.
 * @param settleMs pause after a turn; CPU time that is used in it counts
 */
export async function takeTurns(variants, { rounds, turnMs = 60, settleMs = 0 }) {
  for (const variant of variants) {
    await variant.runs(1);
    const once = await timed(() => variant.runs(3));
    variant.count = Math.max(1, Math.round((3 * turnMs) / once));
    variant.turns ??= [];
  }
  for (let round = 0; round < rounds; round++) {
    const order = variants.map((_, i) => variants[(i + round) % variants.length]);
    if (Math.floor(round / order.length) % 2 === 1) order.reverse();
    for (const { runs, count, turns } of order) {
      await runs(Math.max(1, Math.round((count * WARM_MS) / turnMs)));
      const cpu = process.cpuUsage();
      const passed = await timed(() => runs(count));
      if (settleMs > 0) await sleep(settleMs);
      const { user, system } = process.cpuUsage(cpu);
      turns.push({ ms: passed / count, cpuMs: (user + system) / 1000 / count });
    }
  }
}

/** The median of the ratios of a variant to another in each of their turns, with its 95 % interval (as in the sign test). */
export function ratioOf(variant, base, key) {
  const ratios = variant.turns.map((turn, i) => turn[key] / base.turns[i][key]).toSorted((a, b) => a - b);
  const margin = Math.min(0.5, 0.98 / Math.sqrt(ratios.length));
  return [0.5, 0.5 - margin, 0.5 + margin].map((q) => ratios[Math.floor(q * (ratios.length - 1))]);
}

/** A Markdown table; all columns but the first hold numbers. */
export function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}

/** A change of accuracy, as pairedChange gives it, with its interval. */
export function wordChange({ points, ci95: [low, high] }) {
  const signed = (value) => `${value < 0 ? '' : '+'}${value.toFixed(2)}`;
  return `${signed(points)} (${signed(low)} to ${signed(high)}) points`;
}

/** Replaces the parts between markers in a Markdown file; the prose around them is written by hand. */
export function fillPage(path, parts) {
  let page = readFileSync(path, 'utf8');
  for (const [name, text] of Object.entries(parts)) {
    const pattern = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- /${name} -->)`);
    if (!pattern.test(page)) throw new Error(`${path} has no part '${name}'`);
    page = page.replace(pattern, (_, open, close) => `${open}${text}\n${close}`);
  }
  writeFileSync(path, page);
}

/** A chart for a separate file: there `currentColor` is undefined, and grey is readable on light and dark. */
export const standalone = (svg) => svg.replaceAll('currentColor', '#808890');

/** `progress(title, total)` starts a bar, `progress.advance(count)` advances it. */
export function bars() {
  let bar = { stop() {} };
  const progress = (title, total) => {
    bar.stop();
    bar = startProgress(processIo(), total, title, true);
  };
  progress.advance = (count) => {
    for (let i = 0; i < count; i++) bar.advance();
  };
  progress.stop = () => bar.stop();
  return progress;
}
