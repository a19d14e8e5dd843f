import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const BENCH = join(__dirname, '../../../research/measure');

/** What an expression over a module's exports gives; `input` is bound to the value of that name. */
function evaluate(module: string, expression: string, input: unknown): unknown {
  const script = `import { readFileSync } from 'node:fs';
    import * as module from ${JSON.stringify(`file://${join(BENCH, module)}`)};
    const input = JSON.parse(readFileSync(0, 'utf8'));
    console.log(JSON.stringify(${expression}));`;
  const args = ['--input-type=module', '-e', script];
  return JSON.parse(
    execFileSync(process.execPath, args, { encoding: 'utf8', input: JSON.stringify(input), stdio: 'pipe' }),
  );
}

const flags = (right: number, of = 1000) => Array.from({ length: of }, (_, i) => i < right);
const network = (role: string, seed: number, multiplyAdds: number, right: number, more = {}) => ({
  ...{ role, seed, multiplyAdds, accuracy: right / 1000, right: flags(right) },
  ...more,
});

/** A report of which every claim holds, most of them by the narrowest margin. */
const REPORT = {
  dataset: 'cifar10',
  latencyMs: { twin: { mean: 1 }, 'plain-small': { mean: 0.5 }, 'limit 0.005': { mean: 0.65 } },
  networks: [
    network('twin', 1, 100, 930),
    network('twin', 2, 100, 930),
    network('plain-small', 1, 60, 920),
    network('gated', 1, 100, 928, { saved: 0.4, layers: 0.29 }),
    network('gated', 2, 100, 928, { saved: 0.4, layers: 0.31 }),
  ],
};
const changed = (role: string, more: object) => ({
  ...REPORT,
  networks: REPORT.networks.map((one) => (one.role === role ? { ...one, ...more } : one)),
});

describe('the claims of the protocol', () => {
  const failing = (reports: readonly object[]) =>
    evaluate(
      'claims.mjs',
      `input.map((report) => module.claimsOf(report, { cifar10: [0.005] }).flatMap(({ holds, measured }, i) =>
        measured === undefined ? ['open ' + i] : holds ? [] : [i]))`,
      reports,
    );

  it('hold at their limits, and each fails beyond', () => {
    const slower = { ...REPORT, latencyMs: { ...REPORT.latencyMs, 'limit 0.005': { mean: 0.6501 } } };
    const rival = { accuracy: 0.929, right: flags(929) };
    expect(
      failing([
        REPORT,
        changed('gated', { layers: 0.299 }),
        slower,
        changed('gated', { accuracy: 0.927, right: flags(927) }),
        changed('twin', { accuracy: 0.929, right: flags(929) }),
        changed('plain-small', rival),
      ]),
    ).toEqual([[], [0], [1], [2], [3], [4, 5, 6, 7]]);
  });

  it('draw the line only through plain networks that are better than all cheaper ones', () => {
    const cheap = {
      ...REPORT,
      latencyMs: { ...REPORT.latencyMs, 'plain-cheap': { mean: 0.4 } },
      networks: [...REPORT.networks, network('plain-cheap', 1, 50, 928)],
    };
    // From 92.8 % at half the cost to 93 %, past plain-small, which would lower the line to 92 %.
    expect(failing([cheap])).toEqual([[5, 7]]);
  });

  it('are open where networks are missing', () => {
    const without = (role: string) => ({
      ...REPORT,
      networks: REPORT.networks.filter((one) => one.role !== role),
    });
    const none = { dataset: 'cifar10', latencyMs: {}, networks: [] };
    expect(failing([without('gated'), none])).toEqual([
      ['open 0', 'open 1', 'open 2', 'open 4'],
      ['open 0', 'open 1', 'open 2', 'open 3', 'open 4'],
    ]);
  });

  it('take each image with its mean over the seeds', () => {
    const before = [{ right: [true, false, true, true] }, { right: [true, false, false, true] }];
    const after = [{ right: [true, true, false, true] }];
    const change = evaluate('claims.mjs', 'module.change(input.before, input.after)', { before, after });
    // Differences 0, 1, -1/2, 0.
    expect(change).toMatchObject({ points: 12.5 });
    const half = 100 * 1.959963984540054 * Math.sqrt(((1 + 0.25) / 4 - 0.125 ** 2) / 4);
    expect((change as { ci95: number[] }).ci95[1]! - 12.5).toBeCloseTo(half, 9);
  });
});

describe('the claims about published networks', () => {
  const latency = { fullMs: { p50: 1, mean: 1 }, policyMs: { p50: 0.5, mean: 0.6 } };
  const tuned = { saved: 0.45, changed: 0.02, change: { points: -0.2, ci95: [-0.4, 0] }, latency };
  const exits = { limit: 0.02, saved: 0.2, changed: 0.01, latency };
  const outcomes = (results: object) =>
    evaluate('published.mjs', 'module.publishedClaims(input).map(({ holds }) => holds)', results);

  it('hold at their limits and fail beyond', () => {
    const worse = { ...tuned, change: { points: -0.21, ci95: [-0.4, 0] } };
    expect(outcomes({ 'resnet32-tuned': tuned, 'mobilenetv2-exits': exits })).toEqual([true, true]);
    expect(outcomes({ 'resnet32-tuned': worse })).toEqual([false]);
    expect(outcomes({ 'resnet32-tuned': { ...tuned, saved: 0.449 } })).toEqual([false]);
    expect(outcomes({ 'mobilenetv2-exits': { ...exits, limit: 0.03 } })).toEqual([false]);
  });
});

describe('the registration of policies', () => {
  const folder = mkdtempSync(join(tmpdir(), 'registration-'));
  const [run, cards] = [join(folder, 'run'), join(folder, 'cards')];
  const description = { name: 'mnist/gated-seed1', dataset: 'mnist', role: 'gated', seed: 1, folder: run };
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', cards, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
      stdio: 'pipe',
    });
  const check = () =>
    evaluate('runs.mjs', '[module.checkRegistered(input.run, input.cards)]', { run: description, cards });

  beforeAll(() => {
    for (const made of [run, cards]) mkdirSync(made);
    writeFileSync(join(run, 'model.onnx'), 'model');
    git('init', '-q');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is complete only when a committed card holds the hashes of model and policies', () => {
    expect(check).toThrow(/policy-0.01.json is not there/);
    for (const limit of [0.01, 0.02, 0.04]) writeFileSync(join(run, `policy-${limit}.json`), `${limit}`);
    const lines = evaluate('runs.mjs', 'module.registrationOf(input)', description);
    writeFileSync(join(cards, 'mnist-gated-seed1.md'), `# Card\n\n${lines}\n`);
    expect(check).toThrow(/no committed model card/);
    git('add', '.');
    expect(check).toThrow(/no committed model card/);
    git('commit', '-q', '-m', 'Register');
    expect(check()).toEqual([null]);
    writeFileSync(join(run, 'policy-0.02.json'), 'another');
    expect(check).toThrow(/not those that the committed model card registers/);
  });
});
