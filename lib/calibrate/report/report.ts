/** The calibration report: one self-contained HTML page that shows what was tested, chosen and promised. */
import { escapeHtml } from '../../report/charts.js';
import {
  type DrawnExample,
  type Figure,
  percent,
  renderExamples,
  renderPage,
  renderTable,
  type Section,
  whole,
} from '../../report/page.js';
import { latencyReduction } from '../run/latency.js';
import { contributions, curves } from './charts.js';
import type { Calibration, Example } from './result.js';
import { settingCells, wordConfidence, wordEvents, wordPromise } from './wording.js';

/** Options of `renderCalibration`. */
export interface RenderCalibrationOptions {
  /** Name of the model in the page; the beginning of its SHA-256 when left out. */
  model?: string | undefined;
}

/** Most rows in the tables of classes and of groups. */
const MAX_ROWS = 60;

/**
 * Renders a page about a calibration: risk against time, what each exit saves, settings, groups, classes, examples.
 * @returns HTML in one file, without scripts and without references to the network
 * @throws ResidualSkipError MISSING_DEPENDENCY without the packages vega and vega-lite
 */
export async function renderCalibration(
  result: Calibration,
  options: RenderCalibrationOptions = {},
): Promise<string> {
  return renderPage({
    title: 'What the policy promises',
    subtitle: `${options.model ?? `model ${result.policy.model!.sha256.slice(0, 12)}`}: ${sentenceOf(result)}.`,
    figures: figuresOf(result),
    sections: await sectionsOf(result),
  });
}

/** The promise in words, without a full stop. */
export function sentenceOf({ chosen, policy }: Calibration): string {
  return chosen < 0
    ? 'No setting could be certified: the policy skips nothing'
    : wordPromise(policy.promise!);
}

/** The sections of its page. */
export async function sectionsOf(result: Calibration): Promise<Section[]> {
  const sections = await Promise.all([
    curves(result),
    contributions(result),
    settings(result),
    bolder(result),
    groups(result),
    classes(result),
    examples(result),
    provenance(result),
  ]);
  return sections.filter((section) => section !== undefined);
}

export function figuresOf({ policy }: Calibration): Figure[] {
  const { promise, expected } = policy;
  const { latency } = expected!;
  const times = latency
    ? [
        { value: percent(latencyReduction(latency)), meaning: 'of the latency saved (median)' },
        {
          value: `${latency.policyMs.p50.toFixed(3)} ms`,
          meaning: `median of one item; ${latency.fullMs.p50.toFixed(3)} ms in full`,
        },
      ]
    : [];
  const { also = [], confidence } = promise!;
  const most = (of: string) =>
    `is the most that the risk${of} can be, with ${wordConfidence(confidence)} confidence`;
  const lost = ({ events, items }: { readonly events: number; readonly items: number }) =>
    `${whole(events)} of ${whole(items)}`;
  const certified: Figure[] =
    also.length > 0
      ? [promise!, ...also].map((one) => ({
          value: percent(one.limit, 2),
          meaning: `${most(` of ${one.metric}`)}; ${lost(one)} items that certified it had any loss`,
        }))
      : [
          { value: percent(promise!.limit, 2), meaning: most('') },
          {
            value: lost(promise!),
            meaning: wordEvents('items that certified it had any loss', promise!.gained),
          },
        ];
  return [
    ...certified,
    { value: percent(expected!.multiplyAddsSkipped), meaning: 'of the multiply-adds skipped' },
    ...times,
  ];
}

function settings({ settings: tested, chosen, bolder, policy }: Calibration): Section | undefined {
  if (tested.length === 0) return undefined;
  const rows = tested.map(({ events, gained, latency, ...result }, i) => [
    i === chosen ? 'chosen' : bolder.includes(i) ? 'bolder' : '',
    wordEvents(whole(events), gained),
    ...settingCells(result),
    latency.policyMs.p50.toFixed(3),
    percent(latencyReduction(latency)),
  ]);
  const { metric: first, also = [] } = policy.promise!;
  const columns = [
    '',
    '#with loss',
    also.length > 0 ? `#${first}` : '#risk',
    '#bound alone',
    ...also.map(({ metric }) => `#${metric}`),
    '#p',
    '#multiply-adds',
    '#blocks',
    '#ms',
    '#time saved',
  ];
  return {
    title: 'Settings in the order of testing',
    lead: 'From careful to bold; each is tested only when all before it have passed, so what is below the first failure is no claim. The limit is certified; a bound alone would hold for a setting that was not selected on these items.',
    body: renderTable(columns, rows),
  };
}

function bolder({ policy: { settings: others = [], ...own } }: Calibration): Section | undefined {
  const { joint } = own.promise!;
  if (!joint) return undefined;
  const rows = [own, ...others].map(({ promise, expected }) => [
    percent(promise!.limit, 2),
    wordEvents(whole(promise!.events), promise!.gained),
    promise!.pValue.toPrecision(2),
    percent(expected!.multiplyAddsSkipped),
    expected!.latency ? expected!.latency.policyMs.p50.toFixed(3) : '',
  ]);
  return {
    title: 'Settings of the policy',
    lead: `Their limits hold together with ${wordConfidence(joint.confidence)} confidence: each was tested at ${wordConfidence(own.promise!.confidence)}.`,
    body: renderTable(['limit', '#with loss', '#p', '#multiply-adds', '#ms'], rows),
  };
}

function groups({ policy }: Calibration): Section | undefined {
  const { groups: tested = [] } = policy.promise!;
  if (tested.length === 0) return undefined;
  const rows = tested
    .slice(0, MAX_ROWS)
    .map(({ kind, name, items, events, gained, risk, upperBound, limit, pValue, promised }) => [
      escapeHtml(name),
      kind,
      whole(items),
      wordEvents(whole(events), gained),
      percent(risk, 2),
      percent(upperBound, 2),
      pValue.toPrecision(2),
      promised ? `at most ${percent(limit, 2)}` : 'nothing: too few items',
    ]);
  return {
    title: 'Promises for groups',
    lead: "All of them hold together at the promise's confidence: a setting passes only when every group does.",
    body: renderTable(
      ['group', 'kind', '#items', '#with loss', '#risk', '#bound alone', '#p', 'promised'],
      rows,
    ),
  };
}

function classes({ classes: all }: Calibration): Section | undefined {
  if (all.length < 2) return undefined;
  const rows = all
    .slice(0, MAX_ROWS)
    .map(({ label, items, events, risk, multiplyAddsSkipped }) => [
      escapeHtml(label),
      whole(items),
      whole(events),
      percent(risk, 2),
      percent(multiplyAddsSkipped),
    ]);
  const more = all.length > MAX_ROWS ? ` The first ${MAX_ROWS} of ${whole(all.length)} are shown.` : '';
  return {
    title: 'By class',
    lead: `What the policy did to the items of each class; counts, not promises.${more}`,
    body: renderTable(['class', '#items', '#with loss', '#risk', '#multiply-adds skipped'], rows),
  };
}

function examples({ examples: { most, least } }: Calibration): Section | undefined {
  if (most.length === 0) return undefined;
  const drawn = ({ thumbnail, ran, multiplyAddsSkipped: saved, ...given }: Example): DrawnExample => ({
    image: thumbnail,
    ran,
    caption:
      `${given.answer}, ${given.exit === null ? '' : `by ${given.exit}, `}` +
      (saved < 0 ? `${percent(-saved, 0)} more work` : `${percent(saved, 0)} skipped`) +
      (given.answer === given.fullAnswer ? '' : ` (in full: ${given.fullAnswer})`),
  });
  return {
    title: 'Examples',
    body:
      renderExamples('Those that skip most', most.map(drawn)) +
      renderExamples('Those that skip least', least.map(drawn)),
  };
}

function provenance({ policy, duplicates }: Calibration): Section {
  const { promise, expected, model, guards = [] } = policy;
  const { data } = promise!;
  const { latency } = expected!;
  const guarded = guards.map(
    ({ labels, margin = 0 }) => `${labels.join(', ')}${margin > 0 ? ` within ${margin}` : ''}`,
  );
  const uses = data.uses ?? 1;
  const rows = [
    ['model', `<code>${model!.sha256}</code>`],
    ['data', `<code>${data.sha256}</code>, seed ${data.seed}`],
    [
      'parts',
      `${whole(data.fit)} fit, ${whole(data.order)} order, ${whole(data.certify)} certify; ${whole(duplicates)} copies left out`,
    ],
    ...(promise!.ladders === undefined
      ? []
      : [
          [
            'ladders',
            `${whole(promise!.ladders)} were certified, each at an equal share of the error; this one is the fastest that passed`,
          ],
        ]),
    ...(uses > 1
      ? [
          [
            'warning',
            `${whole(uses)} different calibrations have read the images that certify; choosing among them by their results voids the promise`,
          ],
        ]
      : []),
    ...(guarded.length > 0 ? [['guards', escapeHtml(guarded.join('; '))]] : []),
    ...(latency
      ? [
          [
            'times',
            escapeHtml(`${whole(latency.items)} items in turns, ${latency.isa}, threads: ${latency.threads}`),
          ],
        ]
      : []),
  ];
  return { title: 'Provenance', body: renderTable(['what', 'value'], rows) };
}
