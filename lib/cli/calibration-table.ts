/** What `calibrate` prints. */

import { itemsNeeded } from '../calibrate/certify/p-values.js';
import type { CalibrateOptions } from '../calibrate/options.js';
import type { Calibration } from '../calibrate/report/result.js';
import {
  settingCells,
  titleOfEvents,
  wordConfidence,
  wordEvents,
  wordPromise,
} from '../calibrate/report/wording.js';
import { latencyReduction } from '../calibrate/run/latency.js';
import { enoughItems } from '../calibrate/split.js';
import type { SkipPolicy } from '../skip/policy.js';
import { maxLoss } from '../skip/promise.js';
import { type Io, paint } from './io.js';
import { type Column, formatTable, milliseconds, numbers, percent, plural } from './table.js';

const columnsOf = ({ policy: { promise } }: Calibration): readonly Column[] => [
  { title: '' },
  ...numbers(
    titleOfEvents(promise!.metric),
    'mean loss',
    'bound alone',
    // Of several metrics, the columns before are about the first.
    ...(promise!.also ?? []).map(({ metric }) => metric),
    'p',
    'multiply-adds skipped',
    'blocks skipped',
    'ms',
    'saved',
  ),
];

const groupColumnsOf = ({ policy: { promise } }: Calibration): readonly Column[] => [
  { title: 'group' },
  ...numbers('items', titleOfEvents(promise!.metric), 'bound alone', 'p'),
  { title: '' },
];

/** @param written the policy's path, and the number of item runs taken from an earlier calibration */
export function drawCalibration(
  result: Calibration,
  written: { readonly output: string; readonly resumed: number },
  io: Io,
): string {
  const { policy, duplicates } = result;
  const { groups = [], data } = policy.promise!;
  const notes = [
    ...(data.uses !== undefined && data.uses > 1
      ? [
          `warning: ${data.uses} different calibrations have read the images that certify; choosing among them by their results voids ` +
            'the promise: certify what you chose on images that certified nothing before',
        ]
      : []),
    ...jointNote(policy),
    ...(duplicates > 0 ? [`${plural(duplicates, 'image')} left out: the same as another one`] : []),
    ...(written.resumed > 0 ? [`${plural(written.resumed, 'run')} taken from an earlier calibration`] : []),
    `policy: ${written.output}`,
  ];
  return [
    formatTable(io, columnsOf(result), settingRows(result, io)),
    ...(groups.length > 0 ? [formatTable(io, groupColumnsOf(result), groupRows(result))] : []),
    `${[result.policy, ...(result.policy.settings ?? [])].map((policy) => paint(io, 'bold', verdict(policy, result))).join('\n')}\n${notes.join('\n')}\n`,
  ].join('\n');
}

/** What a dry run prints. */
export function drawEstimate(
  { policy: { promise, expected }, chosen, certifiedOn }: Calibration,
  { confidence = 0.95 }: Pick<CalibrateOptions, 'confidence'>,
  io: Io,
): string {
  const { limit, also = [], data } = promise!;
  const read = data.fit + data.order + data.certify;
  const needed = [promise!, ...also].map((one) =>
    itemsNeeded(one.limit / maxLoss(one.metric), 1 - confidence),
  );
  const enough = enoughItems(Math.max(...needed), 'fit');
  const about = `estimate from ${plural(read, 'item')}, ${certifiedOn.length} of them for the limit of ${percent(limit, 2)}`;
  const certify = `about ${enough.toLocaleString('en')} different items, better more, certify it: leave out --dry-run, and name a file (-o)`;
  if (chosen < 0) return `${about}: nothing would be skipped\n${certify}\n`;
  const { latency, multiplyAddsSkipped } = expected!;
  const saved = paint(io, 'bold', `${percent(multiplyAddsSkipped)} of the multiply-adds would be skipped`);
  const [fast, full] = [latency!.policyMs.p50, latency!.fullMs.p50].map(milliseconds);
  return `${about}: ${saved}; ${fast} ms instead of ${full} ms\n${certify}\n`;
}

function settingRows({ settings, chosen, bolder }: Calibration, io: Io): string[][] {
  return settings.map(({ events, gained, items, latency, ...result }, i) => [
    i === chosen || bolder.includes(i) ? paint(io, 'green', '→') : '',
    wordEvents(`${events} of ${items}`, gained),
    ...settingCells(result),
    milliseconds(latency.policyMs.p50),
    percent(latencyReduction(latency)),
  ]);
}

function groupRows({ policy }: Calibration): string[][] {
  const { also = [], ...first } = policy.promise!;
  const all = [first, ...also].flatMap(({ metric, groups = [] }) =>
    groups.map((group) => ({ ...group, name: also.length > 0 ? `${group.name}, ${metric}` : group.name })),
  );
  return all.map(({ name, items, events, gained, upperBound, pValue, promised }) => [
    name,
    String(items),
    wordEvents(String(events), gained),
    percent(upperBound, 2),
    pValue.toPrecision(2),
    promised ? '' : 'too few items for a promise',
  ]);
}

function jointNote({ promise, settings = [] }: SkipPolicy): string[] {
  const { joint, confidence } = promise!;
  if (!joint) return [];
  const certified = 1 + settings.length;
  const others =
    certified < joint.promises
      ? `; of ${joint.promises} limits, ${certified} ${certified === 1 ? 'has' : 'have'} a setting of its own`
      : '';
  return [
    `all limits hold together with ${wordConfidence(joint.confidence)} confidence, each tested at ${wordConfidence(confidence)}${others}`,
  ];
}

function verdict({ promise, expected }: SkipPolicy, { chosen }: Calibration): string {
  if (chosen < 0)
    return `No setting keeps the limit of ${percent(promise!.limit, 2)}: the policy skips nothing.`;
  const { latency, multiplyAddsSkipped } = expected!;
  return (
    `Certified on ${plural(promise!.items, 'item')}: ${wordPromise(promise!)}. ` +
    `${percent(multiplyAddsSkipped)} of the multiply-adds are skipped; ` +
    `${milliseconds(latency!.policyMs.p50)} ms instead of ${milliseconds(latency!.fullMs.p50)} ms.`
  );
}
