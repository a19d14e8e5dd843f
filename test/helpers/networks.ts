import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { decodeImage } from 'lib/data/image.js';
import { Preprocessor } from 'lib/data/preprocess.js';
import { preprocessorConfigSchema } from 'lib/data/preprocessor-config.js';
import { Tensor } from 'lib/index.js';

const ROOT = resolve(__dirname, '../..');

/** One image of a network's `reference.json`, with PyTorch's results. */
export interface ReferenceItem {
  readonly file: string;
  readonly full: readonly number[];
  readonly gated?: readonly number[];
  readonly decisions?: readonly (0 | 1 | null)[];
  readonly scores?: readonly (number | null)[];
}

/** A network in test/models, or a shipped one. */
export class Network {
  readonly folder: string;
  readonly model: string;
  readonly items: readonly ReferenceItem[];

  constructor(name: string) {
    const kept = join(ROOT, 'test/models', name);
    this.folder = existsSync(kept) ? kept : join(ROOT, 'models', name);
    this.model = join(this.folder, 'model.onnx');
    this.items = (this.#json('reference.json') as { items: ReferenceItem[] }).items;
  }

  /** The preprocessed images of the first `count` items, or of all, as one batch. */
  async images(count = this.items.length): Promise<Tensor<'float32'>> {
    const config = preprocessorConfigSchema().parse(this.#json('preprocessor_config.json'));
    const preprocessor = new Preprocessor(config, { channels: 3, height: 32, width: 32 }, this.folder);
    const pixels = new Float32Array(count * 3 * 32 * 32);
    for (const [index, { file }] of this.items.slice(0, count).entries()) {
      const name = `${basename(dirname(file))}-${basename(file)}`;
      const image = await decodeImage(join(ROOT, 'examples/images', name));
      pixels.set((await preprocessor.apply(image, name)).data, index * 3 * 32 * 32);
    }
    return new Tensor('float32', pixels, [count, 3, 32, 32]);
  }

  #json(name: string): unknown {
    return JSON.parse(readFileSync(join(this.folder, name), 'utf8'));
  }
}

/** Item `index` of a batch, as a batch of one. */
export function itemOf(batch: Tensor<'float32'>, index: number): Tensor<'float32'> {
  const size = batch.size / batch.dims[0]!;
  return new Tensor('float32', batch.data.slice(index * size, (index + 1) * size), [
    1,
    ...batch.dims.slice(1),
  ]);
}
