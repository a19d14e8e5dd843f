/** For tests that calibrate and look at promises: their policies have times, but of few items. */
import { type Effort, Stopwatch } from 'lib/calibrate/run/latency.js';

const FEW: Effort = { items: 5, milliseconds: 50, rounds: 1 };

const { time } = Stopwatch.prototype;
jest.spyOn(Stopwatch.prototype, 'time').mockImplementation(function (
  this: Stopwatch,
  exits,
  inputs,
  _,
  omitted,
) {
  return time.call(this, exits, inputs, FEW, omitted);
});
