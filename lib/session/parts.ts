/** What a session is made of: its networks, policy and backend, read before anything is compiled. */
import type { Backend } from '../backends/backend.js';
import { NativeBackend } from '../backends/native.js';
import { createReference } from '../backends/reference.js';
import type { Precision } from '../model/program/program.js';
import type { ModelLocation } from '../model/read/file.js';
import { type LoadedFront, loadFronts } from './fronts.js';
import type { Network } from './network.js';
import { openNetwork } from './open-network.js';
import { parseSessionOptions, type SessionOptions } from './options.js';
import { checkSamePorts } from './original.js';
import { namingFiles, type OwnPolicy, ownPolicy } from './own-policy.js';
import { checkSource, parseSourceArguments } from './source.js';

export interface SessionParts {
  readonly network: Network;
  /** Path that the model was loaded from; null when it was given as bytes. */
  readonly source: string | null;
  readonly backend: Backend;
  readonly own: OwnPolicy;
  /** The network that verifies answers, if it isn't the model itself. */
  readonly original: Network | undefined;
  readonly fronts: readonly LoadedFront[];
  readonly precision: Precision;
  readonly options: SessionOptions;
}

/** Reads what the arguments of `create` name. */
export async function readParts(source: unknown, rest: readonly unknown[]): Promise<SessionParts> {
  const { bytes, options: given } = parseSourceArguments(source, rest);
  const options = parseSessionOptions(given);
  const asked = options.policy === undefined ? undefined : ownPolicy(options.policy);
  const checked = checkSource(bytes);
  const namesModel = asked && (asked.policy.model !== undefined || asked.policy.fronts !== undefined);
  const identified = ({ policy }: ModelLocation) =>
    options.observers !== undefined || options.original !== undefined || (namesModel ?? policy !== undefined);
  const { cache, freeDimensionOverrides: overrides = {} } = options;
  // The caller's bytes are copied before the first await.
  const load = async (from: typeof checked): Promise<Network> => {
    const source = from instanceof Blob ? new Uint8Array(await from.arrayBuffer()) : from;
    return openNetwork(source, cache, { overrides }, identified);
  };
  const network = await load(checked);
  const { model } = network;
  const own = asked ?? ownPolicy(model.location?.policy ?? 'model');
  const original = options.original === undefined ? undefined : await load(checkSource(options.original));
  if (original) checkSamePorts(model, original.model);
  const { fronts, settings = [] } = own.policy;
  const hasFronts = fronts !== undefined || settings.some((setting) => setting.fronts);
  const loadedFronts = !hasFronts
    ? []
    : await loadFronts(own.policy, model, cache).catch((error: unknown) => {
        throw namingFiles(error, own.info, model.location?.model);
      });
  return {
    network,
    source: typeof checked === 'string' ? checked : null,
    backend: await createBackend(options),
    own,
    original,
    fronts: loadedFronts,
    precision: options.precision ?? own.policy.precision ?? 'float32',
    options,
  };
}

async function createBackend({ backend = 'native', ...options }: SessionOptions): Promise<Backend> {
  const { threads, isa, maxMemory } = options;
  return backend === 'native' ? new NativeBackend({ threads, isa, maxMemory }) : createReference();
}
