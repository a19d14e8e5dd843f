import { ServerError } from '../errors.js';
import type { Parameters } from '../inference/messages.js';

/** The parameters that this server understands, by what has them. */
const KNOWN = {
  parameters: [
    ...['policy', 'max_disagreement', 'trace', 'priority', 'timeout', 'classification', 'binary_data_output'],
  ],
  input: ['binary_data_size'],
  output: ['binary_data', 'classification'],
  load: [],
  unload: ['unload_dependents'],
} as const;

/** Those that are true or false, and those that are numbers. */
const FLAGS: readonly string[] = ['trace', 'binary_data', 'binary_data_output', 'unload_dependents'];
const NUMBERS: readonly string[] = ['priority', 'timeout', 'classification', 'binary_data_size'];

/**
 * Throws INVALID_ARGUMENT for a value of another kind, and for a parameter that would have no effect: a client that sends it counts on one.
 * @param name of the input, output or model
 */
export function checkParameters(what: keyof typeof KNOWN, parameters: Parameters, name?: string): void {
  const known: readonly string[] = KNOWN[what];
  for (const parameter in parameters) {
    const where = name === undefined ? what : `${what} '${name}': parameters`;
    if (known.includes(parameter)) {
      const isFlag = typeof parameters[parameter] === 'boolean';
      const expected =
        (isFlag ? NUMBERS : FLAGS).includes(parameter) && (isFlag ? 'a number' : 'true or false');
      if (!expected) continue;
      throw new ServerError(
        'INVALID_ARGUMENT',
        `${where}.${parameter}: expected ${expected}, received ${JSON.stringify(parameters[parameter])}`,
      );
    }
    const wayOut = known.length > 0 ? `it takes ${known.join(', ')}` : 'leave it out';
    throw new ServerError(
      'INVALID_ARGUMENT',
      `${where}.${parameter}: this server doesn't know it; ${wayOut}`,
    );
  }
}
