import { ResidualSkipError } from '../errors.js';
import { plural } from './table.js';

/** What is wrong with one image; anything else ends a command. */
const ABOUT_ONE_IMAGE = ['INVALID_DATA', 'INVALID_SHAPE'];
const SHOWN = 5;

/** Images that a command leaves out because they can't be used. */
export class Unusable {
  readonly #problems: ResidualSkipError[] = [];

  /** Keeps the problem of one image; throws what is no such problem. */
  note(error: unknown): undefined {
    if (!(error instanceof ResidualSkipError && ABOUT_ONE_IMAGE.includes(error.code))) throw error;
    this.#problems.push(error);
    return undefined;
  }

  /**
   * To be called once a command has printed what it made of the others: its exit code then says that some are missing.
   * @throws the code that all of them have, or INVALID_DATA; the message names them
   */
  check(advice = 'the results are those of the other images'): void {
    const said = this.describe();
    if (said === undefined) return;
    const [first, ...others] = this.#problems.map(({ code }) => code);
    const code = others.every((other) => other === first) ? first! : 'INVALID_DATA';
    throw new ResidualSkipError(code, `${said}; ${advice}`);
  }

  /** How many there are and what is wrong with some of them; undefined when there are none. */
  describe(): string | undefined {
    const count = this.#problems.length;
    if (count === 0) return undefined;
    const more = count > SHOWN ? `; and ${count - SHOWN} more` : '';
    return `${plural(count, 'image')} can't be used: ${this.#problems
      .slice(0, SHOWN)
      .map(({ message }) => message)
      .join('; ')}${more}`;
  }
}
