import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');

/** What an expression over the exports of a module of bench gives; `input` is bound to the value of that name. */
function evaluate(module: string, expression: string, input?: unknown): unknown {
  const script = `import * as module from ${JSON.stringify(`file://${join(ROOT, 'bench', module)}`)};
    const input = JSON.parse(process.argv[1]);
    console.log(JSON.stringify(${expression}));`;
  const args = ['--input-type=module', '-e', script, JSON.stringify(input ?? null)];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

/** CPU times of 200 turns, each `spread` more or less than the mean. */
const turns = (mean: number, spread = 0) =>
  Array.from({ length: 200 }, (_, i) => ({ cpuMs: mean + (i % 2 ? spread : -spread) }));

/** A report of a data set of which every claim holds, most of them by the narrowest margin. */
const REPORT = {
  card: {
    plain: { accuracy: 0.9, saved: 0 },
    full: { accuracy: 0.9, saved: 0 },
    skipping: { accuracy: 0.895, saved: 0.4 },
  },
  runs: {
    plain: { title: 'the plain twin', accuracy: 0.901, turns: turns(1) },
    full: { title: 'the network in full', accuracy: 0.899, turns: turns(1) },
    skipping: { title: 'the network that skips', accuracy: 0.895, saved: 0.395, turns: turns(0.65) },
  },
  // Of 300 items whose losses have a probability of 1 %, 7 or more are lost in 3.3 % of all draws, 6 or more in 8.2 %.
  promises: [{ file: 'policy.json', what: 'lost', losses: 6, items: 300, limit: 0.01 }],
  decisions: { images: 2000, near: 3, unexplained: 0 },
  cut: 0.35,
};
const running = (name: 'plain' | 'full' | 'skipping', more: object) => ({
  ...REPORT,
  runs: { ...REPORT.runs, [name]: { ...REPORT.runs[name], ...more } },
});

describe('the claims of the shipped networks', () => {
  it('hold at their limits, and each fails beyond', () => {
    const reports = [
      REPORT,
      running('plain', { accuracy: 0.9011 }),
      running('full', { accuracy: 0.8989 }),
      running('skipping', { accuracy: 0.8939 }),
      running('skipping', { saved: 0.3949 }),
      running('skipping', { turns: turns(0.651) }),
      { ...REPORT, promises: [{ ...REPORT.promises[0], losses: 7 }] },
      { ...REPORT, decisions: { images: 2000, near: 3, unexplained: 1 } },
    ];
    const failing =
      'input.map((report) => module.claimsOf(report).flatMap(({ holds }, i) => (holds ? [] : [i])))';
    expect(evaluate('claims.mjs', failing, reports)).toEqual([[], ...reports.slice(1).map((_, i) => [i])]);
  });

  it('hold only where the interval does', () => {
    const outcomes = 'input.map((report) => module.claimsOf(report)[4])';
    const [steady, noisy] = evaluate('claims.mjs', outcomes, [
      running('skipping', { turns: turns(0.64, 0.05) }),
      running('skipping', { turns: turns(0.64, 0.5) }),
    ]) as { measured: string; holds: boolean }[];
    expect(steady).toMatchObject({
      measured: expect.stringMatching(/^36\.0 % \(35\.\d % to 36\.\d %\)$/),
      holds: true,
    });
    expect(noisy).toMatchObject({
      measured: expect.stringMatching(/^36\.0 % \(2\d\.\d % to 4\d\.\d %\)$/),
      holds: false,
    });
  });

  it('set gained answers off where the promise does', () => {
    const net = { file: 'policy.json', what: 'lost', losses: 60, gained: 57, items: 300, limit: 0.01 };
    const outcomes = 'input.map((report) => module.claimsOf(report)[5])';
    expect(
      evaluate('claims.mjs', outcomes, [
        { ...REPORT, promises: [net] },
        { ...REPORT, promises: [{ ...net, gained: 20 }] },
      ]),
    ).toMatchObject([{ measured: '60 of 300, less 57 gained', holds: true }, { holds: false }]);
  });

  it('are read from the cards of models that exist', () => {
    const sets = evaluate('networks.mjs', 'module.SETS') as Record<string, { networks: [string, string] }>;
    expect(Object.keys(sets).length).toBeGreaterThanOrEqual(5);
    for (const { networks } of Object.values(sets)) {
      for (const name of networks)
        expect([name, existsSync(join(ROOT, 'models', name, 'model.onnx'))]).toEqual([name, true]);
      const card = readFileSync(join(ROOT, 'models', networks[1], 'README.md'), 'utf8');
      const figures = evaluate('claims.mjs', 'module.cardFigures(input)', card);
      const share = { accuracy: expect.any(Number), saved: expect.any(Number) };
      expect(figures).toEqual({ plain: share, full: share, skipping: share });
    }
  });

  it('are those of the card for MNIST', () => {
    const card = readFileSync(join(ROOT, 'models/mnist-resnet20-gates/README.md'), 'utf8');
    expect(evaluate('claims.mjs', 'module.cardFigures(input)', card)).toEqual({
      plain: { accuracy: expect.closeTo(0.9955, 9), saved: 0 },
      full: { accuracy: expect.closeTo(0.995, 9), saved: 0 },
      skipping: { accuracy: expect.closeTo(0.995, 9), saved: expect.closeTo(0.3944, 9) },
    });
  });

  it('names what does the work of a flag that is gone', () => {
    const run = () =>
      execFileSync(process.execPath, [join(ROOT, 'bench/reproduce.mjs'), '--protocol', 'DIR'], {
        stdio: 'pipe',
      });
    expect(run).toThrow(/--protocol is gone; use node research\/measure\/reproduce\.mjs DIR/);
  });
});
