import type { DataModel } from 'lib/classify/data-model.js';
import { Comparing } from 'lib/quantize/compare.js';
import type { InferenceSession } from 'lib/session/session.js';
import type { Tensor } from 'lib/tensor/tensor.js';

test('a network that answers NaN has changed its answer, whichever it is', () => {
  const changed = [
    [
      [1, 0],
      [1, 0],
    ],
    [
      [0, 1],
      [1, 0],
    ],
    [
      [1, 0],
      [Number.NaN, 0],
    ],
    [
      [Number.NaN, 0],
      [Number.NaN, 0],
    ],
  ].map(([float, int8]) => {
    const session = (outputs: unknown) =>
      ({
        runSync: () => {},
        runTracedSync: () => ({ outputs, trace: { items: [{ blocks: [] }] } }),
      }) as unknown as InferenceSession;
    const answerOf = (outputs: number[]) => Float32Array.from(outputs);
    const opened = { session: session(float), feeds: () => ({}), answerOf };
    const comparing = new Comparing(opened as unknown as DataModel, session(int8));
    comparing.add({} as Tensor);
    return comparing.result().answers.changed;
  });
  expect(changed).toEqual([0, 1, 1, 1]);
});

test('in two images, each network is timed as often after itself as after the other', () => {
  const ran: { readonly name: string; readonly timed: boolean }[] = [];
  const session = (name: string) =>
    ({
      runSync: () => void ran.push({ name, timed: true }),
      runTracedSync: () => {
        ran.push({ name, timed: false });
        return { outputs: {}, trace: { items: [{ blocks: [] }] } };
      },
    }) as unknown as InferenceSession;
  const opened = {
    session: session('float'),
    feeds: () => ({}),
    answerOf: () => Float32Array.of(1, 0),
  };
  const comparing = new Comparing(opened as unknown as DataModel, session('int8'));
  for (let image = 0; image < 4; image++) comparing.add({} as Tensor);
  const after = { float: 0, int8: 0 };
  for (const [i, { name, timed }] of ran.entries())
    if (timed && ran[i - 1]!.name === name) after[name as 'float' | 'int8']++;
  expect(after).toEqual({ float: 2, int8: 2 });
});
