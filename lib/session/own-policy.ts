/** The policy of a session: the one that was asked for or, without one, that of the model's folder. */
import { ResidualSkipError } from '../errors.js';
import { loadPolicy, type PolicySource, voidedPromise } from '../skip/load-policy.js';
import { hashPolicy, type SkipPolicy } from '../skip/policy.js';
import { late } from '../util/late.js';

/** Which policy a session has, and what it promises. */
export interface PolicyInfo {
  /** `model`, `full`, or the path of the policy file; null for a policy that was given as an object. */
  readonly source: string | null;
  /** Hex SHA-256 of the policy as canonical JSON, as in audit logs. */
  readonly sha256: string;
  /** What `calibrate` certified; null if the policy promises nothing. */
  readonly promise: NonNullable<SkipPolicy['promise']> | null;
  /** What `calibrate` certified before the policy was edited, so that it isn't promised any more. */
  readonly voided?: NonNullable<SkipPolicy['promise']>;
  /** Hex SHA-256 of the network whose answers are promised, where the policy names one, such as the float form of an 8-bit network. */
  readonly original?: string;
  /** What prepared the images that certified it, where the policy says so. */
  readonly preprocessing?: string;
}

export interface OwnPolicy {
  readonly policy: SkipPolicy;
  readonly info: PolicyInfo;
}

/** @throws ResidualSkipError INVALID_POLICY, READ_FAILED */
export function ownPolicy(source: PolicySource): OwnPolicy {
  const policy = loadPolicy(source);
  const { promise = null, preprocessing, reference } = policy;
  // Few ask for it.
  const sha256 = late(() => hashPolicy(policy));
  const voided = voidedPromise(policy);
  const info = {
    source: typeof source === 'string' ? source : null,
    get sha256() {
      return sha256();
    },
    promise,
    ...(voided && { voided }),
    ...(reference && { original: reference.sha256 }),
    ...(preprocessing && { preprocessing }),
  };
  return { policy, info };
}

const OF_POLICIES: readonly unknown[] = ['INVALID_POLICY', 'POLICY_MISMATCH'];

/** What is thrown if a policy can't be used for a model: for a policy file, the message names both. */
export function namingFiles(error: unknown, { source }: PolicyInfo, model: string | undefined): unknown {
  if (!(error instanceof ResidualSkipError) || !OF_POLICIES.includes(error.code)) return error;
  if (source === null || source === 'model' || source === 'full') return error;
  const what = `policy '${source}': it can't be used for ${model === undefined ? 'this model' : `'${model}'`}`;
  const way = "calibrate the model again, or give another policy: 'full' runs every block";
  return new ResidualSkipError(error.code, `${what} (${error.message}); ${way}`, { cause: error });
}
