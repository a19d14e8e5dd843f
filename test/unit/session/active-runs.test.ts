import { setTimeout } from 'node:timers/promises';
import { ActiveRuns } from 'lib/session/run.js';

test('idle waits while a run is under way, and no longer', async () => {
  const runs = new ActiveRuns();
  let end = () => {};
  void runs.track(
    new Promise<void>((resolve) => {
      end = resolve;
    }),
  );
  let waited = false;
  const waiting = runs.idle(60_000).then(() => {
    waited = true;
  });
  await setTimeout(30);
  expect(waited).toBe(false);
  end();
  await waiting;
});

test('idle goes ahead when its patience is over', async () => {
  const runs = new ActiveRuns();
  void runs.track(new Promise(() => {}));
  await runs.idle(10);
});

test('settled waits for runs that fail, too', async () => {
  const runs = new ActiveRuns();
  const failing = runs.track(setTimeout(10).then(() => Promise.reject(new Error('broken'))));
  await runs.settled();
  await expect(failing).rejects.toThrow('broken');
});
