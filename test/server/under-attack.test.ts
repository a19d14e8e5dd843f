import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describeBuilt, ROOT } from '../helpers/dist.js';

interface Measured {
  readonly attack: string;
  readonly answers: number;
  readonly failed: number;
  readonly turns: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly peakMiB: number;
  readonly code: number;
}

/** What attackers are answered; a status may be missing where they don't wait for one. */
const ANSWERED: Readonly<Record<string, readonly string[]>> = {
  images: ['200', '413'],
  'images of clients that leave': [],
  svg: ['400'],
  json: ['400', '413'],
  brackets: ['400', '413'],
  batches: ['200', '413'],
  grpc: [],
  packed: ['400', '413'],
  chunks: [],
  'requests in a row': [],
  'gRPC messages of empty fields': [],
};

describeBuilt('while attackers repeat', () => {
  test.each(Object.keys(ANSWERED))(
    '%s: an honest client has all of its answers, and memory stays below 512 MiB',
    (attack) => {
      const args = [join(ROOT, 'bench/attacks.mjs'), attack, '--seconds', '2', '--json'];
      const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
      expect(stderr).toBe('');
      const [measured] = JSON.parse(stdout) as [Measured];
      expect(measured).toMatchObject({ attack, failed: 0, code: 0 });
      expect(measured.answers).toBeGreaterThan(0);
      expect(measured.turns).toBeGreaterThan(0);
      // Connections of bodies that are too large may be reset before their answers are read.
      const statuses = Object.keys(measured.statuses).filter((status) => status !== '0');
      for (const status of statuses) expect([...ANSWERED[attack]!, '429']).toContain(status);
      expect(measured.peakMiB).toBeLessThan(512);
    },
  );
});
