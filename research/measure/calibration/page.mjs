// Writes the measured tables of docs/lab/calibration.md.
import { fillPage, table } from '../../../bench/harness.mjs';

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const ms = (value) => value.toFixed(3);

function policies(reports) {
  const columns = ['network', 'exits', 'certified on', 'changed there'];
  columns.push('multiply-adds skipped', 'blocks bypassed');
  columns.push('answers changed', 'accuracy in full', 'accuracy', 'seconds to calibrate');
  return table(
    columns,
    reports.map(({ network, promise, accuracy, policy, ...rest }) => [
      network,
      policy.heads?.exits.length ?? 0,
      promise.items,
      promise.events,
      percent(rest.multiplyAddsSkipped),
      percent(rest.blocksBypassed),
      percent(rest.disagreement, 2),
      percent(accuracy.full, 2),
      percent(accuracy.policy, 2),
      rest.seconds,
    ]),
  );
}

function latencies(reports) {
  const columns = ['network', 'images', 'p50 in full, ms', 'p50, ms', 'p50 saved'];
  columns.push('mean in full, ms', 'mean, ms', 'mean saved');
  const timed = reports.filter(({ latency }) => latency);
  return table(
    columns,
    timed.map(({ network, latency: { items, fullMs, policyMs } }) => [
      network,
      items,
      ms(fullMs.p50),
      ms(policyMs.p50),
      percent(1 - policyMs.p50 / fullMs.p50),
      ms(fullMs.mean),
      ms(policyMs.mean),
      percent(1 - policyMs.mean / fullMs.mean),
    ]),
  );
}

function baselines(reports) {
  const columns = ['multiply-adds skipped (answers changed)', ...reports.map(({ network }) => network)];
  const cell = (saved, disagreement) => `${percent(saved)} (${percent(disagreement, 2)})`;
  const names = reports[0]?.baselines.map(({ name }) => name) ?? [];
  const rows = names.map((name) => [
    name,
    ...reports.map(({ baselines: own }) => {
      const found = own.find((one) => one.name === name);
      return found ? cell(found.saved, found.disagreement) : '';
    }),
  ]);
  const ours = reports.map(({ multiplyAddsSkipped, disagreement }) =>
    cell(multiplyAddsSkipped, disagreement),
  );
  return table(columns, [['calibrated policy', ...ours], ...rows]);
}

/** Fills the tables of the page from the reports. */
export function writeTables(path, reports) {
  const timed = reports.some(({ latency }) => latency);
  const times =
    'Times at batch 1 on one thread, the policy and the full network taking turns on the same images:';
  const parts = [policies(reports), ...(timed ? [times, latencies(reports)] : [])];
  parts.push('Beside simple ways to skip, at the same certified limit:', baselines(reports));
  fillPage(path, { measured: parts.join('\n\n') });
}
