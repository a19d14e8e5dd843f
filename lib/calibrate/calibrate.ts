/**
 * Calibration of a frozen network: fits heads, orders settings from "no skipping" to the most aggressive, and
 * certifies the furthest one that keeps its promise. See docs/calibration.md.
 */
import type { Backend } from '../backends/backend.js';
import { ResidualSkipError } from '../errors.js';
import type { Program } from '../model/program.js';
import { resolveGuards } from '../skip/guards.js';
import { encodeHeads } from '../skip/heads.js';
import type { Calibration, CalibrationItem, CalibrationOptions, SettingResult } from './calibration.js';
import { headsOf, prices, settingsAt } from './dial.js';
import { fitLevers } from './fit.js';
import { byClass, count, Judge, type Measured } from './judge.js';
import { binomialPValue, checkFraction, fixedSequenceTest, upperRate } from './risk.js';
import { checkParts, fingerprint, split } from './split.js';

const SETTINGS = 24;

/**
 * @param program of the model at the shape of the items, one float32 input and one float32 output [N, classes]
 * @throws ResidualSkipError INVALID_ARGUMENT, INVALID_DATA (too little data, NaN logits, labels missing),
 * UNSUPPORTED_MODEL (nothing to skip)
 */
export async function calibrate(
  backend: Backend,
  program: Program,
  sha256: string,
  items: readonly CalibrationItem[],
  options: CalibrationOptions = {},
): Promise<Calibration> {
  const { maxDisagreement = 0.01, confidence = 0.95, metric = 'disagreement', seed = 0, budget } = options;
  checkFraction('maxDisagreement', maxDisagreement);
  checkFraction('confidence', confidence);
  if (budget !== undefined) checkFraction('budget', budget);
  checkProgram(program);
  const guards = resolveGuards(options.guards ?? [], options.labels);
  const parts = split(items, seed);
  checkParts(parts, maxDisagreement, 1 - confidence, budget !== undefined);
  if (metric === 'accuracy' && items.some(({ label }) => label === undefined)) {
    throw new ResidualSkipError('INVALID_DATA', "the metric 'accuracy' needs a label for every item");
  }

  const chosenFrom = [...parts.fit, ...parts.order];
  const gates = program.blocks.filter(({ skippable, gate }) => skippable && !gate).length;
  const steps = options.settings ?? SETTINGS;
  const total =
    chosenFrom.length * (1 + gates) + parts.order.length * steps + parts.certify.length * (2 + steps);
  let done = 0;
  const onItems = (count: number) => {
    done += count;
    options.onProgress?.(Math.min(done, total), total);
  };

  const levers = await fitLevers(
    backend,
    program,
    chosenFrom.map((i) => items[i]!),
    onItems,
  );
  const dial = prices(steps).map((price) => ({
    price,
    heads: headsOf(settingsAt(levers, chosenFrom.length, price)),
  }));
  const judge = new Judge(backend, program, guards, metric, onItems);
  const order = await judge.full(parts.order.map((i) => items[i]!));
  // Settings that already break the rule on `order` are not worth testing; the order of the rest stands.
  const limit = budget === undefined ? 2 * maxDisagreement : 1;
  const worth: typeof dial = [];
  for (const setting of dial) {
    if (setting.heads.exits.length + setting.heads.gates.length === 0) continue;
    const { broken, multiplyAddsSkipped } = await judge.measure(setting.heads, order);
    if (count(broken) / parts.order.length > limit) break;
    worth.push(setting);
    if (budget !== undefined && 1 - multiplyAddsSkipped <= budget) break;
  }

  const certify = await judge.full(parts.certify.map((i) => items[i]!));
  const results: Measured[] = [];
  for (const { heads } of worth) results.push(await judge.measure(heads, certify));
  const settings = results.map((result, i): SettingResult => {
    const { broken, ...rest } = result;
    const events = count(broken);
    const n = parts.certify.length;
    return {
      price: worth[i]!.price,
      events,
      items: n,
      pValue: binomialPValue(events, n, maxDisagreement),
      upperBound: upperRate(events, n, 1 - confidence),
      ...rest,
    };
  });
  const passed = fixedSequenceTest(settings, 1 - confidence);
  const chosen = budget === undefined ? passed : settings.length - 1;
  options.onProgress?.(total, total);
  const result = results[chosen];
  return {
    policy: {
      version: 1,
      model: { sha256 },
      blocks: {},
      ...(chosen >= 0 && { heads: encodeHeads(worth[chosen]!.heads) }),
      ...(options.guards && { guards: [...options.guards] }),
      ...(options.labels && { labels: [...options.labels] }),
      promise: {
        metric,
        limit: maxDisagreement,
        confidence,
        certified: chosen <= passed,
        items: parts.certify.length,
        events: chosen >= 0 ? settings[chosen]!.events : 0,
        pValue: chosen >= 0 ? settings[chosen]!.pValue : 0,
        upperBound: chosen >= 0 ? settings[chosen]!.upperBound : 0,
        data: {
          sha256: fingerprint(items),
          seed,
          fit: parts.fit.length,
          order: parts.order.length,
          certify: parts.certify.length,
        },
      },
      expected: {
        multiplyAddsSkipped: result?.multiplyAddsSkipped ?? 0,
        blocksSkipped: result?.blocksSkipped ?? 0,
        latencyReduction: null,
      },
    },
    settings,
    chosen,
    classes: byClass(certify.answers, result, options.labels),
  };
}

function checkProgram({ blocks, inputs, outputs, values }: Program): void {
  if (!blocks.some(({ skippable }) => skippable)) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'the model has no residual block that can be skipped: `inspect` shows what was found',
    );
  }
  const shape = outputs[0] && values[outputs[0].value]!.shape;
  if (inputs.length !== 1 || outputs.length !== 1 || shape?.length !== 2) {
    throw new ResidualSkipError(
      'UNSUPPORTED_MODEL',
      'calibration needs a model with one input and one output of class scores, float32 [batch, classes]',
    );
  }
}
