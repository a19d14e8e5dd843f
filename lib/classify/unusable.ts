import { ResidualSkipError } from '../errors.js';

/** What is wrong with one image; anything else ends the work. */
const ABOUT_ONE_IMAGE = ['INVALID_DATA', 'INVALID_SHAPE'];
const SHOWN = 5;

/** Images that are left out because they can't be used. */
export class Unusable {
  constructor(readonly problems: ResidualSkipError[] = []) {}

  /** Keeps the problem of one image; throws what is no such problem. */
  note(error: unknown): undefined {
    if (!(error instanceof ResidualSkipError && ABOUT_ONE_IMAGE.includes(error.code))) throw error;
    this.problems.push(error);
    return undefined;
  }

  /** @throws ResidualSkipError with the code that all of them have, or INVALID_DATA; the message names them */
  check(advice = 'the results are those of the other images'): void {
    const said = this.describe();
    if (said === undefined) return;
    const [first, ...others] = this.problems.map(({ code }) => code);
    const code = others.every((other) => other === first) ? first! : 'INVALID_DATA';
    throw new ResidualSkipError(code, `${said}; ${advice}`);
  }

  /** Throws as `check` does when none but these were there. */
  checkSome(usable: number): void {
    if (usable > 0) return;
    this.check('no image is left');
    throw new ResidualSkipError('INVALID_DATA', 'images: there is none; give at least one');
  }

  /** How many there are and what is wrong with some of them; undefined when there are none. */
  describe(): string | undefined {
    const count = this.problems.length;
    if (count === 0) return undefined;
    const more = count > SHOWN ? `; and ${count - SHOWN} more` : '';
    const shown = this.problems.slice(0, SHOWN).map(({ message }) => message);
    return `${count === 1 ? '1 image' : `${count.toLocaleString('en')} images`} can't be used: ${shown.join('; ')}${more}`;
  }
}
