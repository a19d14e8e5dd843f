import { setTimeout } from 'node:timers/promises';
import { idle } from '../../../lib/session/idle.js';

test('waits while something runs, and no longer', async () => {
  const running = new Set(['a']);
  let waited = false;
  const waiting = idle(running, 60_000).then(() => {
    waited = true;
  });
  await setTimeout(30);
  expect(waited).toBe(false);
  running.clear();
  await waiting;
});

test('goes ahead when its patience is over, though something runs', async () => {
  const running = new Set(['a']);
  await idle(running, 10);
  expect(running.size).toBe(1);
});
