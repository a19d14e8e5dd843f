import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GraphBuilder, int64s, modelBytes, tensor } from './onnx-builder.js';
import { randomFloats } from './random.js';

const CHANNELS = 8;
export const LABELS = ['plain', 'striped', 'dotted', 'checked', 'round', 'square'] as const;

/**
 * A small residual network with seeded weights, in the form of Hugging Face's exported image classifiers:
 * `pixel_values` [batch, 3, height, width] to `logits` [batch, labels].
 * @param dead whether the weights of the first channel of each convolution are nearly 0, so that its bias alone says what it computes
 */
export function seededNetwork(dead = false): Uint8Array {
  const graph = new GraphBuilder('seeded');
  let seed = 1;
  const weights = (shape: readonly number[], scale: number) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return graph.constant(
      tensor(
        randomFloats(size, seed++).map((value) => value * scale),
        shape,
      ),
    );
  };
  const filters = (inputs: number) => {
    const shape = [CHANNELS, inputs, 3, 3];
    const values = randomFloats(CHANNELS * inputs * 9, seed++).map((value) => value * 0.35);
    if (dead) values.fill(1e-12, 0, inputs * 9);
    return graph.constant(tensor(values, shape));
  };
  const conv = (from: string, inputs: number, strides: number) =>
    graph.node('Conv', [from, filters(inputs), weights([CHANNELS], 0.1)], {
      kernel_shape: [3, 3],
      pads: [1, 1, 1, 1],
      strides: [strides, strides],
    });
  const input = graph.input('pixel_values', ['batch_size', 3, 'height', 'width']);
  let stream = graph.node('Relu', [conv(input, 3, 2)]);
  for (let block = 0; block < 3; block++) {
    const body = conv(graph.node('Relu', [conv(stream, CHANNELS, 1)]), CHANNELS, 1);
    stream = graph.node('Relu', [graph.node('Add', [body, stream])]);
  }
  const pooled = graph.node('Reshape', [
    graph.node('GlobalAveragePool', [stream]),
    graph.constant(int64s(0, -1)),
  ]);
  const head = [pooled, weights([CHANNELS, LABELS.length], 2), weights([LABELS.length], 0.5)];
  graph.nodes('Gemm', head, {}, { outputs: ['logits'] });
  graph.output('logits', ['batch_size', LABELS.length]);
  return modelBytes(graph);
}

/** Writes the network as a folder in Hugging Face's layout. */
export function writeSeededModel(folder: string): void {
  mkdirSync(join(folder, 'onnx'), { recursive: true });
  writeFileSync(join(folder, 'onnx/model.onnx'), seededNetwork());
  const json = (name: string, value: unknown) => writeFileSync(join(folder, name), JSON.stringify(value));
  json('config.json', {
    model_type: 'resnet',
    architectures: ['ResNetForImageClassification'],
    id2label: Object.fromEntries(LABELS.entries()),
  });
  json('preprocessor_config.json', {
    image_processor_type: 'ViTImageProcessor',
    do_resize: true,
    size: { height: 32, width: 32 },
    resample: 2,
    do_normalize: true,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
  });
}
