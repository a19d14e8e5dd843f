/** The network that answers are verified with, when it isn't the session's own. */
import { ResidualSkipError } from '../errors.js';
import type { ModelFacts } from '../model/read/model.js';
import type { SkipPolicy } from '../skip/policy.js';
import { describeTensor } from '../tensor/tensor.js';

/**
 * Checks that two models take the same inputs and give outputs of the same names.
 * @throws ResidualSkipError INVALID_ARGUMENT
 */
export function checkSamePorts(model: ModelFacts, original: ModelFacts): void {
  const ports = ({ inputs, outputs }: ModelFacts) => {
    const taken = inputs.map(({ name, dtype, shape }) => `${name}: ${describeTensor(dtype, shape)}`);
    return `${taken.join(', ')} to ${outputs.map(({ name, dtype }) => `${name}: ${dtype}`).join(', ')}`;
  };
  const [own, other] = [model, original].map(ports);
  if (own === other) return;
  throw new ResidualSkipError(
    'INVALID_ARGUMENT',
    `options.original: it goes from ${other}, but the model from ${own}; give the float network that the model was made from`,
  );
}

/**
 * Checks that a policy and the session mean the same original.
 * @param sha256 of the session's original, if it has one
 * @param model the session's own, whose answers a policy is about that names no other
 * @throws ResidualSkipError POLICY_MISMATCH for another original, INVALID_POLICY when guards need one
 */
export function checkOriginal(
  { reference, promise, guards = [] }: SkipPolicy,
  sha256: string | undefined,
  model: Pick<ModelFacts, 'sha256'>,
): void {
  if (!reference) {
    if (!promise || sha256 === undefined || sha256 === model.sha256) return;
    throw new ResidualSkipError(
      'POLICY_MISMATCH',
      `policy: its promise is about the answers of the model itself in full, but options.original has another network, with SHA-256 ${sha256}; ` +
        'leave the original out, or calibrate with it',
    );
  }
  if (reference.sha256 === sha256) return;
  if (sha256 !== undefined) {
    throw new ResidualSkipError(
      'POLICY_MISMATCH',
      `policy: its promise is about the answers of the network with SHA-256 ${reference.sha256}, but options.original has ` +
        `${sha256}; use that network, or calibrate with this one`,
    );
  }
  if (guards.length === 0) return;
  throw new ResidualSkipError(
    'INVALID_POLICY',
    `policy: its guards verify with the network with SHA-256 ${reference.sha256}; give that file as the option original`,
  );
}
