/** `Tensor.fromImage`, against onnxruntime-common's, which takes an image from a canvas. */

import { type FromImageOptions, Tensor } from 'lib/index.js';
import * as ort from 'onnxruntime-common';

const [WIDTH, HEIGHT] = [5, 3];

/** As much of a browser's classes as onnxruntime-common uses. */
class FakeImageData {
  constructor(
    readonly data: Uint8ClampedArray,
    readonly width: number,
    readonly height: number,
  ) {}
}
class FakeCanvas {
  width = 0;
  height = 0;
  #image: FakeImageData | undefined;

  getContext() {
    return {
      putImageData: (image: FakeImageData) => {
        this.#image = image;
      },
      getImageData: () => this.#image,
    };
  }
}

const data = Uint8ClampedArray.from({ length: WIDTH * HEIGHT * 4 }, (_, i) => (i * 37) % 256);
const image = { width: WIDTH, height: HEIGHT, data };

beforeAll(() => Object.assign(globalThis, { ImageData: FakeImageData, OffscreenCanvas: FakeCanvas }));
afterAll(() => {
  for (const name of ['ImageData', 'OffscreenCanvas']) Reflect.deleteProperty(globalThis, name);
});

test.each<FromImageOptions | undefined>([
  undefined,
  {},
  { tensorFormat: 'BGR' },
  { tensorFormat: 'RBG', tensorLayout: 'NCHW' },
  { tensorFormat: 'RGBA' },
  { norm: { mean: 127.5, bias: -127.5 } },
  { norm: { mean: [58.4, 57.1, 57.4], bias: [-123.7, -116.3, -103.5] }, tensorFormat: 'BGR' },
  { norm: { mean: [58.4, 57.1, 57.4, 3], bias: [1, 2, 3, 4] }, tensorFormat: 'RGBA', dataType: 'float32' },
  { norm: { mean: [58.4, 57.1, 57.4], bias: [1, 2, 3] }, tensorFormat: 'RGBA' },
])('%j gives the bits that onnxruntime-common gives', async (options) => {
  const own = await Tensor.fromImage(image, options);
  // Its function writes into the options.
  const given = options && structuredClone(options);
  const fake = new FakeImageData(data, WIDTH, HEIGHT) as never;
  const expected = await ort.Tensor.fromImage(fake, given as ort.TensorFromImageDataOptions);
  expect(own).toMatchObject({ type: expected.type, dims: expected.dims });
  expect(own.data).toEqual(expected.data);
});

test('NHWC has the same elements, channel by channel', async () => {
  const options = { tensorFormat: 'BGR', norm: { bias: 3 } } as const;
  const planes = await Tensor.fromImage(image, options);
  const interleaved = await Tensor.fromImage(image, { ...options, tensorLayout: 'NHWC' });
  expect(interleaved.dims).toEqual([1, HEIGHT, WIDTH, 3]);
  const pixels = WIDTH * HEIGHT;
  const expected = Float32Array.from(
    planes.data,
    (_, i) => planes.data[(i % 3) * pixels + Math.floor(i / 3)]!,
  );
  expect(interleaved.data).toEqual(expected);
});

test('uint8 keeps the pixels', async () => {
  const tensor = await Tensor.fromImage(image, {
    dataType: 'uint8',
    tensorLayout: 'NHWC',
    tensorFormat: 'RGBA',
  });
  expect(tensor).toMatchObject({ type: 'uint8', dims: [1, HEIGHT, WIDTH, 4] });
  expect(tensor.data).toEqual(new Uint8Array(data));
});

test('grey is spread over the channels, and what has no alpha is opaque', async () => {
  const grey = { width: 2, height: 1, channels: 1, data: Uint8Array.of(10, 200) } as const;
  const options = { dataType: 'uint8', tensorFormat: 'RGBA' } as const;
  expect([...(await Tensor.fromImage(grey, options)).data]).toEqual([10, 200, 10, 200, 10, 200, 255, 255]);
  const rgb = { width: 1, height: 1, channels: 3, data: Uint8Array.of(1, 2, 3) } as const;
  expect([...(await Tensor.fromImage(rgb, options)).data]).toEqual([1, 2, 3, 255]);
});

test.each<[string, unknown, object, RegExp]>([
  ['a path', 'cat.jpg', {}, /expected pixels.*ImageClassifier\.prepare/],
  ['too few pixels', { ...image, width: 4 }, {}, /expected width x height x channels/],
  ['no length', { ...image, height: 0 }, {}, /expected width x height x channels/],
  ['a misspelt option', image, { tensorformat: 'RGB' }, /did you mean 'tensorFormat'\?/],
  ['resizing', image, { resizedWidth: 2 }, /resizedWidth: .*resize the image before/],
  ['a divisor of 0', image, { norm: { mean: [1, 0, 1] } }, /numbers other than 0/],
  ['a format that is none', image, { tensorFormat: 'GBR' }, /options\.tensorFormat/],
  ['a norm of uint8', image, { dataType: 'uint8', norm: { mean: 1 } }, /options\.norm: is for float32/],
])('%s is refused', async (_, source, options, message) => {
  await expect(Tensor.fromImage(source as never, options)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});
