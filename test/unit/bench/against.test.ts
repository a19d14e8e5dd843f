import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '../../..');

/** The networks that count as slower, by the ratios that each had in three rounds. */
function slower(ratios: Readonly<Record<string, readonly number[]>>): string[] {
  const rounds = [0, 1, 2].map((round) =>
    Object.entries(ratios).map(([title, of]) => ({ title, ratio: of[round] })),
  );
  const script = `import { slowerIn } from ${JSON.stringify(`file://${ROOT}/bench/against.mjs`)};
    console.log(JSON.stringify(slowerIn(JSON.parse(process.argv[1]))));`;
  const args = ['--input-type=module', '-e', script, JSON.stringify(rounds)];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

describe('the comparison with another commit', () => {
  it('finds networks that are over 8 % slower in two of three rounds', () => {
    expect(
      slower({
        twice: [1.09, 1, 1.2],
        once: [1, 1.5, 1],
        limit: [1.08, 1.08, 1.08],
        always: [1.1, 1.1, 1.1],
      }),
    ).toEqual(['twice', 'always']);
  });

  it('is made by .ci/run, with a commit that bench/baseline names in full', () => {
    expect(readFileSync(join(ROOT, 'bench/baseline'), 'utf8')).toMatch(/^[0-9a-f]{40}\n$/);
    expect(readFileSync(join(ROOT, '.ci/run'), 'utf8')).toContain(
      '--against "$(cat bench/baseline)" --short',
    );
  });
});
