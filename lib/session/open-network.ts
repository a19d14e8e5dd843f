import type { ModelLocation } from '../model/read/file.js';
import { loadNetwork, type Network, type Reading } from './network.js';
import { openStored } from './stored/network.js';

/**
 * The network of a model's file, or of the bytes of one.
 * @param cache the folder of kept programs, if there is one; bytes have none
 * @param identified whether the file's hash is needed for certain
 * @throws what `loadNetwork` throws
 */
export async function openNetwork(
  source: string | Uint8Array,
  cache: string | undefined,
  reading: Reading,
  identified: (location: ModelLocation) => boolean,
): Promise<Network> {
  if (typeof source === 'string' && cache !== undefined)
    return openStored(source, cache, reading, identified);
  return loadNetwork(source, reading, { identified });
}
