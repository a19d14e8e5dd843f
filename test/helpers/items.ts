import type { ReplayItem } from 'lib/audit/replay.js';
import { Tensor } from 'lib/tensor/tensor.js';
import type { Network } from './networks.js';

/** The example images of a network, preprocessed, one by one. */
export async function itemsOf(network: Network): Promise<ReplayItem[]> {
  const { data } = await network.images();
  const pixels = 3 * 32 * 32;
  return network.items.map(({ file }, i) => {
    const item = new Tensor('float32', data.slice(i * pixels, (i + 1) * pixels), [1, 3, 32, 32]);
    return { name: file, feeds: { input: item } };
  });
}
