import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const MODULE = join(__dirname, '../../../bench/reproduction/claims.mjs');

/** A report of a data set of which every claim holds, by the narrowest margin. */
const REPORT = {
  bypassed: { layers: 0.22 },
  latencyMs: { plain: { p50: 1 }, gated: { p50: 0.7 } },
  gatedMinusPlain: { points: -0.2, ci95: [-0.5, 0.1] },
  gatedMinusStatic: { points: 0.01, ci95: [-0.2, 0.2] },
  decisions: { images: 10000, near: 3, differing: 2, unexplained: 0 },
};

/** How many claims of each report fail. */
function failing(reports: readonly object[]): number[] {
  const script = `import { claimsOf } from ${JSON.stringify(`file://${MODULE}`)};
    const reports = JSON.parse(process.argv[1]);
    console.log(JSON.stringify(reports.map((report) => claimsOf(report).filter(({ holds }) => !holds).length)));`;
  const args = ['--input-type=module', '-e', script, JSON.stringify(reports)];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

describe('the claims of the reproduction', () => {
  it('hold at their limits, and each fails beyond', () => {
    const worse = [
      { bypassed: { layers: 0.2199 } },
      { latencyMs: { plain: { p50: 1 }, gated: { p50: 0.701 } } },
      { gatedMinusPlain: { points: -0.21, ci95: [-0.5, 0.1] } },
      { gatedMinusStatic: { points: 0, ci95: [-0.2, 0.2] } },
      { decisions: { images: 10000, near: 3, differing: 3, unexplained: 1 } },
      { decisions: undefined },
    ];
    expect(failing([REPORT, ...worse.map((change) => ({ ...REPORT, ...change }))])).toEqual([
      0,
      ...worse.map(() => 1),
    ]);
  });
});
