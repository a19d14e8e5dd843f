/** The residual streams of a network: what a skipped block passes on. */
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import { bindFeeds } from '../session/feeds.js';
import type { TensorMap } from '../skip/observer.js';

/** Names of the values before and after each block that can be skipped, as the engine finds the blocks. */
export async function streamsOf(file: string, feeds: TensorMap): Promise<[string, string][]> {
  const model = await loadModel(file);
  const { blocks, values } = compileModel(model, bindFeeds(model, feeds).binding);
  return blocks
    .filter(({ skippable }) => skippable)
    .map(({ input, output }) => [values[input]!.name, values[output]!.name]);
}
