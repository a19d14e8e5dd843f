import { Bodies } from '../../server/src/bodies.js';

/** Counts bodies from now on, and the most bytes of unfinished ones; until jest.restoreAllMocks(). */
export function watchUnfinished(): { begun: number; most: number } {
  const seen = { begun: 0, most: 0 };
  const begin = Bodies.prototype.begin;
  jest.spyOn(Bodies.prototype, 'begin').mockImplementation(function (this: Bodies, client, drop) {
    seen.begun++;
    const { add, end } = begin.call(this, client, drop);
    const watched = (bytes: number) => {
      add(bytes);
      seen.most = Math.max(seen.most, this.unfinishedBytes);
    };
    return { end, add: watched };
  });
  return seen;
}
