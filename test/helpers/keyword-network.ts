/** A network that tells spoken words apart, trained on the spot, and sounds for it. */
import { InferenceSession, Tensor } from 'lib/index.js';
import { GraphBuilder, modelBytes, tensor } from './onnx-builder.js';
import { randomFloats, uniform } from './random.js';
import { wav } from './wav.js';

export const WORDS = ['yes', 'no', 'left', 'right'] as const;
export const RATE = 4000;
/** A quarter of a second. */
const SAMPLES = 1024;
const [WIDTH, BLOCKS, TAPS, STRIDE] = [32, 6, 16, 8];

/** Formants in Hz at the beginning and at the end of a word's vowel. */
const FORMANTS = [
  [
    [400, 1900],
    [500, 1500],
  ],
  [
    [450, 850],
    [350, 750],
  ],
  [
    [600, 1700],
    [550, 1200],
  ],
  [
    [700, 1100],
    [380, 1850],
  ],
] as const;

/** A voice says a word: harmonics of its pitch, the louder the nearer they are to the formants, in noise. */
export function spoken(word: number, random: () => number): Float32Array {
  const pitch = 90 + 120 * random();
  const voice = 0.92 + 0.16 * random();
  const noise = 0.03 + 0.35 * random() ** 3;
  const start = 0.2 * random();
  const length = 0.55 + 0.25 * random();
  const [from, to] = FORMANTS[word]!;
  const phases = Array.from({ length: Math.floor(RATE / 2 / pitch) }, () => 2 * Math.PI * random());
  return Float32Array.from({ length: SAMPLES }, (_, i) => {
    const time = (i / SAMPLES - start) / length;
    const hiss = noise * (2 * random() - 1);
    if (time < 0 || time > 1) return hiss / 3;
    const formants = from.map((first, k) => voice * (first + (to[k]! - first) * time));
    let sum = 0;
    for (const [k, phase] of phases.entries()) {
      const frequency = pitch * (k + 1);
      const loud = formants.reduce((most, formant) => most + 1 / (1 + ((frequency - formant) / 80) ** 2), 0);
      sum += loud * Math.sin((2 * Math.PI * frequency * i) / RATE + phase);
    }
    return 0.2 * Math.sin(Math.PI * time) * sum + hiss / 3;
  });
}

/** Words in turn. */
export function utterances(count: number, seed: number): { word: number; samples: Float32Array }[] {
  const random = uniform(seed);
  return Array.from({ length: count }, (_, i) => {
    const word = i % WORDS.length;
    return { word, samples: spoken(word, random) };
  });
}

/** A file of 16-bit PCM. */
export function wavOf(samples: Float32Array): Uint8Array {
  const pcm = Int16Array.from(samples, (x) => Math.max(-1, Math.min(1, x)) * 32767);
  return wav(new Uint8Array(pcm.buffer), { rate: RATE });
}

/** Samples to the means of the channels behind residual blocks of 1-D convolutions, and with `last` to the words. */
function network(last?: { weight: Float32Array; bias: Float32Array }): Uint8Array {
  const graph = new GraphBuilder();
  let seed = 1;
  const conv = (x: string, shape: readonly number[], scale: number, attributes = {}) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const weights = randomFloats(size, seed++).map((weight) => weight * scale);
    return graph.node('Conv', [x, graph.constant(tensor(weights, shape))], attributes);
  };
  let stream = conv(graph.input('samples', ['n', 1, SAMPLES]), [WIDTH, 1, TAPS], 1, { strides: [STRIDE] });
  stream = graph.node('Relu', [stream]);
  for (let block = 0; block < BLOCKS; block++) {
    const inner = conv(stream, [WIDTH, WIDTH, 3], 0.2, { pads: [1, 1] });
    const body = conv(graph.node('Relu', [inner]), [WIDTH, WIDTH, 3], 0.12, { pads: [1, 1] });
    stream = graph.node('Relu', [graph.node('Add', [stream, body])]);
  }
  const pooled = graph.node('Flatten', [graph.node('GlobalAveragePool', [stream])]);
  if (!last) return modelBytes(graph.output(pooled, ['n', WIDTH]));
  const { weight, bias } = last;
  const head = [pooled, graph.constant(tensor(weight, [WIDTH, WORDS.length])), graph.constant(tensor(bias))];
  graph.nodes('Softmax', [graph.node('Gemm', head)], { axis: 1 }, { outputs: ['word'] });
  return modelBytes(graph.output('word', ['n', WORDS.length]));
}

/** Its last layer is trained on `count` sounds, by steps of gradient descent on the cross-entropy of standardised features. */
export async function trainedKeywordNetwork(count: number): Promise<Uint8Array> {
  const sounds = utterances(count, 1);
  await using session = await InferenceSession.create(network(), { threads: 1 });
  const features: Float32Array[] = [];
  for (const { samples } of sounds) {
    const [pooled] = Object.values(
      await session.run({ samples: new Tensor('float32', samples, [1, 1, SAMPLES]) }),
    );
    features.push(pooled!.data as Float32Array);
  }
  const each = Array.from({ length: WIDTH }, (_, k) => features.map((row) => row[k]!));
  const means = each.map((list) => list.reduce((a, b) => a + b) / count);
  const spreads = each.map((list, k) =>
    Math.sqrt(list.reduce((sum, x) => sum + (x - means[k]!) ** 2, 1e-6) / count),
  );
  const rows = features.map((row) => Array.from(row, (x, k) => (x - means[k]!) / spreads[k]!));
  const classes = WORDS.length;
  const weight = new Float64Array(WIDTH * classes);
  const bias = new Float64Array(classes);
  for (let step = 0; step < 300; step++) {
    const change = new Float64Array(weight.length);
    const shift = new Float64Array(classes);
    for (const [i, row] of rows.entries()) {
      const logits = Array.from(bias, (b, c) =>
        row.reduce((sum, x, k) => sum + x * weight[k * classes + c]!, b),
      );
      const most = Math.max(...logits);
      const exps = logits.map((x) => Math.exp(x - most));
      const total = exps.reduce((a, b) => a + b);
      for (const [c, exp] of exps.entries()) {
        const error = exp / total - Number(c === sounds[i]!.word);
        shift[c]! += error / count;
        for (const [k, x] of row.entries()) change[k * classes + c]! += (error * x) / count;
      }
    }
    for (const [i, x] of change.entries()) weight[i]! -= 2 * x;
    for (const [c, x] of shift.entries()) bias[c]! -= 2 * x;
  }
  const scaled = Float32Array.from(weight, (w, i) => w / spreads[Math.floor(i / classes)]!);
  const centred = Float32Array.from(bias, (b, c) =>
    means.reduce((sum, mean, k) => sum - mean * scaled[k * classes + c]!, b),
  );
  return network({ weight: scaled, bias: centred });
}
