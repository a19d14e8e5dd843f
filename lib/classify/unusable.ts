import { ResidualSkipError } from '../errors.js';

/** Codes of errors that concern a single item; any other error ends the work. */
const ABOUT_ONE_ITEM = ['INVALID_DATA', 'INVALID_SHAPE'];
const SHOWN = 5;

/** Images or texts that are left out because they can't be used. */
export class Unusable {
  /** Those to fit on that are also in the data. */
  readonly shared = new Set<number>();

  constructor(
    readonly problems: ResidualSkipError[] = [],
    private readonly what: 'image' | 'text' | 'feed' = 'image',
  ) {}

  /** Keeps an error that concerns a single item; throws any other. */
  note(error: unknown): undefined {
    if (!(error instanceof ResidualSkipError && ABOUT_ONE_ITEM.includes(error.code))) throw error;
    this.problems.push(error);
    return undefined;
  }

  /** @throws ResidualSkipError if there are any: with their common code, or else INVALID_DATA; the message describes them */
  check(advice = `the results are those of the other ${this.what}s`): void {
    const said = this.describe();
    if (said === undefined) return;
    const [first, ...others] = this.problems.map(({ code }) => code);
    const code = others.every((other) => other === first) ? first! : 'INVALID_DATA';
    throw new ResidualSkipError(code, `${said}; ${advice}`);
  }

  /** Throws as `check` does when no usable image is left. */
  checkSome(usable: number): void {
    if (usable > 0) return;
    this.check(`no ${this.what} is left`);
    throw new ResidualSkipError('INVALID_DATA', `${this.what}s: there is none; give at least one`);
  }

  /** Notes what was left out of those to fit on. */
  noteFit(note: (message: string) => void): void {
    const said = this.describe();
    if (said !== undefined) note(`of the ${this.what}s to fit on, ${said}; they are left out`);
    const { size } = this.shared;
    const some = `${size.toLocaleString('en')} ${size === 1 ? 'is' : 'are'}`;
    if (size > 0) note(`of the ${this.what}s to fit on, ${some} also in the data; they are left out`);
  }

  /** How many there are, and what is wrong with the first few; undefined when there are none. */
  describe(): string | undefined {
    const count = this.problems.length;
    if (count === 0) return undefined;
    const more = count > SHOWN ? `; and ${count - SHOWN} more` : '';
    const shown = this.problems.slice(0, SHOWN).map(({ message }) => message);
    return `${count === 1 ? `1 ${this.what}` : `${count.toLocaleString('en')} ${this.what}s`} can't be used: ${shown.join('; ')}${more}`;
  }
}
