/** docs/tasks.md as a test: each metric ends in a promise about what the network answers, which holds on items that weren't seen. */
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { TASKS } from 'lib/classify/task.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { loadPolicy } from 'lib/skip/load-policy.js';
import { type Metric, metricSchema } from 'lib/skip/promise.js';
import '../../helpers/few-timed.js';
import { removeFolders } from '../../helpers/files.js';
import { tableOf } from '../../helpers/snippets.js';
import { byVectors, pathOf, QUICK, slack } from '../../helpers/task-calibrations.js';
import { type FormName, taskItems } from '../../helpers/task-networks.js';

afterAll(removeFolders);

/** A network, what is asked, the metric of the promise, and its limit. */
type Row = [FormName, CalibrateOptions, Metric, number];
const ROWS: Row[] = [
  ['numbers', { task: 'regression' }, 'relative', 0.05],
  ['numbers', { metric: 'absolute@0.2' }, 'absolute@0.2', 0.05],
  ['numbers', { metric: 'excess@0.05' }, 'excess@0.05', 0.1],
  // One vector can't answer for all tokens, so that there are no exits.
  ['tokens', { metric: 'relative' }, 'relative', 0.05],
  ['number', { metric: 'absolute@0.02' }, 'absolute@0.02', 0.05],
  ['number', { metric: 'relative@0.03' }, 'relative@0.03', 0.05],
  ['labels', {}, 'labels@0.5', 0.05],
  ['labels', { metric: 'missed' }, 'missed@0.5', 0.05],
  ['labels', { metric: 'added@0.6' }, 'added@0.6', 0.05],
  ['label', { task: 'multi-label' }, 'labels@0.5', 0.05],
  ['logits', { task: 'multi-label' }, 'labels@0', 0.1],
  ['two outputs', { task: 'single-label' }, 'disagreement', 0.1],
  ['two outputs', { metric: 'probability', task: 'single-label' }, 'probability', 0.05],
  ['vector', {}, 'cosine', 0.02],
  ['map', { task: 'segmentation' }, 'pixels', 0.05],
  ['map', { metric: 'miou' }, 'miou', 0.1],
  ['mask', { task: 'segmentation' }, 'pixels@0.5', 0.05],
  ['class map', {}, 'pixels', 0.05],
  ['boxes', { task: 'detection', boxes: 'centres' }, 'boxes@0.5', 0.1],
  ['columns', { metric: 'boxes@0.6', boxes: 'yolo' }, 'boxes@0.6', 0.1],
  ['kept boxes', { task: 'detection', boxes: 'centres' }, 'boxes@0.5', 0.1],
  ['tokens', {}, 'tokens', 0.05],
  ['steps', { metric: 'ctc' }, 'ctc@0', 0.1],
  ['ranking', { task: 'ranking' }, 'ranking', 0.05],
  ['numbers', { task: 'custom', ...byVectors }, 'custom', 0.05],
];
/** Those that get exits. */
const OF_CLASSES: Row[] = [
  ['grades', { task: 'single-label' }, 'disagreement', 0.1],
  ['grades', { task: 'ordinal' }, 'ordinal', 0.05],
  ['bands', {}, 'disagreement', 0.1],
  ['pair', {}, 'disagreement', 0.1],
  ['audio', {}, 'disagreement', 0.1],
];

test.each([...ROWS, ...OF_CLASSES])('%s, %j: %s', async (form, options, metric, limit) => {
  const path = pathOf(form);
  const asked = { ...QUICK, ...options, maxDisagreement: limit };
  const { policy } = await calibrate(path, taskItems(form, 500, 3), asked);
  const { promise, expected } = loadPolicy(policy);
  expect(promise).toMatchObject({ metric, limit, confidence: 0.95 });
  expect(promise!.pValue).toBeLessThanOrEqual(0.05);
  expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);

  const fresh = 2000;
  const { skip } = await evaluate(path, taskItems(form, fresh, 4), { ...QUICK, policy, loss: options.loss });
  expect(skip.loss).toMatchObject({ metric, limit });
  expect(skip.loss!.mean).toBeLessThan(limit + slack(fresh));
  // What is skipped changes something: the promise isn't about nothing.
  expect(skip.loss!.mean).toBeGreaterThan(0);
});

test('an embedding keeps its neighbours', async () => {
  const path = pathOf('vector');
  const asked = { ...QUICK, metric: 'recall@5', maxDisagreement: 0.2 } as const;
  const { policy } = await calibrate(path, taskItems('vector', 500, 3), asked);
  expect(policy.promise).toMatchObject({ metric: 'recall@5', limit: 0.2 });
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  const notes: string[] = [];
  const onNote = (note: string) => void notes.push(note);
  const { skip } = await evaluate(path, taskItems('vector', 20, 4), { ...QUICK, policy, onNote });
  expect(skip.loss).toBeNull();
  expect(notes).toEqual([expect.stringMatching(/metric 'recall@5' isn't measured/)]);
});

const nameOf = (metric: string) => metric.split('@')[0]!;

test('the page names the metrics, each of which is tested here', () => {
  const rows = tableOf('docs/tasks.md', 'metric');
  for (const [metric, task] of rows) {
    expect(metricSchema().safeParse(metric).success).toBe(true);
    expect(TASKS).toContain(task);
  }
  const tested = [...ROWS, ...OF_CLASSES].map(([, , metric]) => nameOf(metric));
  // accuracy needs labels: calibrate.test.ts; recall@k has a test of its own.
  expect(new Set(rows.map(([metric]) => nameOf(metric!)))).toEqual(
    new Set([...tested, 'accuracy', 'recall']),
  );
});
