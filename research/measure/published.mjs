// The claims about networks that others trained, and the results of measure-published.mjs.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const RESULTS = join(dirname(fileURLToPath(import.meta.url)), 'published.json');

/**
 * `saved`: minimum share of multiply-adds saved; `limit`: the certified limit; `points`: minimum change of accuracy. The lower ends of
 * the 95 % intervals must reach the minima.
 */
export const PUBLISHED = {
  'resnet32-calibrate': { title: 'ResNet-32 for CIFAR-10, `calibrate --fit`', limit: 0.01, saved: 0.35 },
  'resnet32-tuned': { title: 'ResNet-32 for CIFAR-10, `adapt.py --fine-tune`', saved: 0.45, points: -0.2 },
  'mobilenetv2-calibrate': { title: 'MobileNetV2 for ImageNet, `calibrate --fit`', limit: 0.02, saved: 0.12 },
  'mobilenetv2-exits': { title: 'MobileNetV2 for ImageNet, `adapt.py`', limit: 0.02, saved: 0.2 },
};

export const readPublished = () => (existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : {});
export const writePublished = (results) => writeFileSync(RESULTS, `${JSON.stringify(results, null, 1)}\n`);

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const signed = (value) => `${value < 0 ? '' : '+'}${value.toFixed(2)}`;

/** [{ set, claim, measured, holds }] of what has been measured, in the format of claimsOf in claims.mjs. */
export function publishedClaims(results) {
  return Object.entries(results).map(([name, found]) => {
    const { title, limit, saved, points } = PUBLISHED[name];
    const promise = limit === undefined ? '' : ` at a limit of ${percent(limit, 0)}`;
    const accuracy =
      points === undefined ? '' : `, accuracy not more than ${-points} points below the original's`;
    return {
      set: title,
      claim: `at least ${percent(saved, 0)} of the multiply-adds are saved${promise}${accuracy}`,
      measured: measuredOf(found),
      holds: Boolean(
        found.savedCi95[0] >= saved - 1e-9 &&
          (limit === undefined || found.limit <= limit) &&
          (points === undefined || found.change.ci95[0] >= points - 1e-9),
      ),
    };
  });
}

function measuredOf({ saved, savedCi95, changed, change, latency: { fullMs, policyMs } }) {
  const cuts = ['p50', 'mean'].map((key) => `${key} ${signed(100 * (policyMs[key] / fullMs[key] - 1))} %`);
  const points =
    change && `accuracy ${signed(change.points)} (${change.ci95.map(signed).join(' to ')}) points`;
  const share = `${percent(saved)} (${savedCi95.map((end) => percent(end)).join(' to ')})`;
  return [share, `${percent(changed, 2)} of answers changed`, points, ...cuts].filter(Boolean).join(', ');
}
