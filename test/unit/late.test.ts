import { late } from '../../lib/util/late.js';

it('makes a value once, when it is first asked for', () => {
  const make = jest.fn(() => undefined);
  const value = late(make);
  expect(make).not.toHaveBeenCalled();
  expect([value(), value()]).toEqual([undefined, undefined]);
  expect(make).toHaveBeenCalledTimes(1);
});
