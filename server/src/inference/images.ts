import type { Tensor } from 'residual-skip';
import type { Caller } from '../caller.js';
import { ServerError } from '../errors.js';
import type { ServedModel } from '../models/model.js';
import { bytesOfBase64 } from './base64.js';
import { concat } from './call.js';

/** Counts bytes that a request holds until it has its answer; throws BUSY or TOO_LARGE. */
export type Hold = (bytes: number) => void;

/** Images of one request that may wait for the decoder at a time, so that others' come between. */
const MAX_AT_A_TIME = 2;

/** The images of an input, decoded and prepared for the model. */
export async function imagesAsTensor(
  model: ServedModel,
  name: string,
  files: readonly (Uint8Array | string)[],
  caller: Caller,
  hold: Hold,
): Promise<Tensor> {
  if (files.length === 0)
    throw new ServerError('INVALID_ARGUMENT', `input '${name}': it has no images; send one or more`);
  const tensors: Tensor[] = [];
  let first: Tensor | undefined;
  // When one of its readers fails, a generator ends for all of them.
  const rest = (function* () {
    yield* files.entries();
  })();
  const decode = async () => {
    for (const [i, file] of rest) {
      const invalid = (problem: string) =>
        new ServerError('INVALID_ARGUMENT', `input '${name}': images[${i}]: ${problem}; send the whole file`);
      const bytes = typeof file === 'string' ? bytesOfBase64(file, invalid) : file;
      const tensor = await model.decode(bytes, `images[${i}]`, caller);
      if (!first) hold(files.length * tensor.data.byteLength);
      first ??= tensor;
      if (tensor.dims.some((length, axis) => length !== first!.dims[axis])) {
        throw new ServerError(
          'INVALID_ARGUMENT',
          `input '${name}': its images have different sizes after preprocessing; send them one by one`,
        );
      }
      tensors[i] = tensor;
    }
  };
  await Promise.all(Array.from({ length: MAX_AT_A_TIME }, decode));
  return concat(tensors);
}
