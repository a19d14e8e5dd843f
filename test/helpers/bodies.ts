import { Bodies } from '../../server/src/http/bodies.js';

/**
 * Counts bodies from now on, and the bytes of unfinished ones: the most, and those after the last change. Until
 * jest.restoreAllMocks().
 */
export function watchUnfinished(): { begun: number; most: number; last: number } {
  const seen = { begun: 0, most: 0, last: 0 };
  const begin = Bodies.prototype.begin;
  jest.spyOn(Bodies.prototype, 'begin').mockImplementation(function (this: Bodies, client, drop) {
    seen.begun++;
    const { add, end } = begin.call(this, client, drop);
    const watched = (bytes: number) => {
      add(bytes);
      seen.last = this.unfinishedBytes;
      seen.most = Math.max(seen.most, seen.last);
    };
    const ended = () => {
      end();
      seen.last = this.unfinishedBytes;
    };
    return { end: ended, add: watched };
  });
  return seen;
}
