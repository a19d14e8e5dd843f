/** The residual streams of a network: what a skipped block passes on. */
import type { ImageClassifier } from '../classify/image-classifier.js';
import { compileModel } from '../model/compile.js';
import { loadModel } from '../model/load.js';
import { bindFeeds } from '../session/feeds.js';
import type { Tensor } from '../tensor/tensor.js';

/** Names of the values before and after each block that can be skipped, as the engine finds the blocks. */
export async function streamsOf(classifier: ImageClassifier, image: Tensor): Promise<[string, string][]> {
  const model = await loadModel(classifier.file);
  const { blocks, values } = compileModel(model, bindFeeds(model, classifier.feeds(image)).binding);
  return blocks
    .filter(({ skippable }) => skippable)
    .map(({ input, output }) => [values[input]!.name, values[output]!.name]);
}
