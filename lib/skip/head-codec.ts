/** Heads as stored in a policy file: base64 of little-endian float32, or of bfloat16 where that loses no bit. */
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { holdsBfloat16 } from '../numeric/bfloat16.js';
import { late } from '../util/late.js';
import type { AnyExit, ExitSpec } from './exits.js';
import { FEATURES, type Features, type Head, type Layer } from './head.js';

const finite = late(() => z.number().refine(Number.isFinite, { error: 'expected a finite number' }));
const floats = late(() => z.base64().meta({ description: 'Base64 of little-endian float32.' }));
const after = late(() => z.string());
const reads = late(() =>
  z.string().optional().meta({
    description:
      "The block of an earlier exit: the input of its head's last layer is appended to the features.",
  }),
);
const weight = late(() =>
  z.base64().meta({
    description: 'outputs x inputs, row-major; base64 of little-endian numbers of the dtype.',
  }),
);
const layersSchema = late(() =>
  z
    .array(
      z.union([
        z.strictObject({
          dtype: z
            .enum(['float32', 'bfloat16'])
            .optional()
            .meta({ description: "Of the weights; 'float32' by default." }),
          weight: weight(),
          bias: floats(),
        }),
        z
          .strictObject({
            dtype: z.literal('int8'),
            weight: weight(),
            bias: floats(),
            scale: floats(),
            shift: floats(),
            factor: floats(),
          })
          .meta({
            description:
              'factor * (weight * x) + bias, where x is round(scale * input + shift), at least -128 and at most 127: scale and shift for ' +
              'each input, factor for each output.',
          }),
      ]),
    )
    .min(1)
    .meta({ description: 'In order, with a ReLU between each two.' }),
);
const headShape = late(() => ({
  features: z.enum(FEATURES).meta({
    description:
      'mean: averages over height and width; grid: averages of the four quarters, then the maxima of the whole; ' +
      'pyramid: averages of 4 x 4 windows, then the maxima and the mean squares of the whole; ' +
      'rows: averages over the tokens, or over height and width where channels are last; ' +
      'tokens: the first token, then the averages over all; ' +
      'places: each place of a map, where the layers answer with a map; classes: the same, of class scores.',
  }),
  layers: layersSchema(),
  score: layersSchema()
    .optional()
    .meta({
      description:
        "Where `layers` answer with the network's output itself, such as a vector: layers on the same features, whose one number, through a " +
        'sigmoid, is compared with the threshold. On places of a map, the last one reads means over all places.',
    }),
}));

export const headsSchema = late(() =>
  z
    .strictObject({
      exits: z.array(
        z.union([
          z.strictObject({ after: after(), reads: reads(), threshold: finite(), ...headShape() }).meta({
            description:
              'Behind a block; taken when the score, or without one the largest softmax probability, reaches the threshold.',
          }),
          z.strictObject({ after: after(), threshold: finite() }).meta({
            description:
              "The model's own exit behind a block, or that of a front, by its name; or a front's exit behind a block of its own, as " +
              '`front/block`. Taken when its score reaches the threshold.',
          }),
        ]),
      ),
      gates: z
        .array(
          z.never({ error: 'a policy has no gates of its own any more; calibrate makes one with exits' }),
        )
        .optional()
        .meta({ description: 'Empty; older files have it.' }),
    })
    .meta({ description: 'Early exits that the policy adds to the model.' }),
);

/** Exits inside a front: their thresholds are among those of the policy. */
export const frontExitsSchema = late(() =>
  z
    .array(z.strictObject({ after: after(), reads: reads(), ...headShape() }))
    .meta({ description: 'Exits behind its own blocks.' }),
);

export type EncodedHeads = z.infer<ReturnType<typeof headsSchema>>;

export function encodeExits(exits: readonly ExitSpec[]): EncodedHeads {
  return {
    exits: exits.map(({ after, reads, head, threshold }) => ({
      after,
      ...(reads !== undefined && { reads }),
      threshold,
      ...(head && encodeHead(head)),
    })),
  };
}

/** @throws ResidualSkipError INVALID_POLICY when a string doesn't hold complete, finite numbers */
export function decodeExits({ exits }: EncodedHeads): ExitSpec[] {
  return exits.map(({ after, threshold, ...head }) => ({
    after,
    ...('reads' in head && head.reads !== undefined && { reads: head.reads }),
    threshold,
    ...('layers' in head && { head: decodeHead(after, head) }),
  }));
}

export function encodeFrontExits(exits: readonly AnyExit[]): z.infer<ReturnType<typeof frontExitsSchema>> {
  return exits.map(({ after, reads, head }) => ({
    after,
    ...(reads !== undefined && { reads }),
    ...encodeHead(head!),
  }));
}

export function decodeFrontExits(exits: z.infer<ReturnType<typeof frontExitsSchema>>): AnyExit[] {
  return exits.map(({ after, reads, ...head }) => ({
    after,
    ...(reads !== undefined && { reads }),
    head: decodeHead(after, head),
  }));
}

function encodeHead({ features, layers, score }: Head) {
  const encode = ({ weight: w, bias, rounding }: Layer): EncodedLayer => {
    if (!rounding) {
      const exact = holdsBfloat16(w);
      const weights = exact
        ? { dtype: 'bfloat16' as const, weight: encodeBfloat16(w) }
        : { weight: encodeFloats(w) };
      return { ...weights, bias: encodeFloats(bias) };
    }
    const { scale, shift, factor } = rounding;
    return {
      dtype: 'int8',
      weight: Buffer.from(Int8Array.from(w).buffer).toString('base64'),
      bias: encodeFloats(bias),
      scale: encodeFloats(scale),
      shift: encodeFloats(shift),
      factor: encodeFloats(factor),
    };
  };
  return { features, layers: layers.map(encode), ...(score && { score: score.map(encode) }) };
}

type EncodedLayer = z.infer<ReturnType<typeof layersSchema>>[number];

interface EncodedHead {
  readonly features: Features;
  readonly layers: readonly EncodedLayer[];
  readonly score?: readonly EncodedLayer[] | undefined;
}

function decodeHead(block: string, { features, layers, score }: EncodedHead): Head {
  const numbers = (text: string) => decodeFloats(block, text);
  const decode = (layer: EncodedLayer): Layer => {
    const bias = numbers(layer.bias);
    if (layer.dtype !== 'int8') return { weight: decodeFloats(block, layer.weight, layer.dtype), bias };
    const [scale, shift, factor] = [layer.scale, layer.shift, layer.factor].map(numbers) as ThreeArrays;
    const weights = Float32Array.from(new Int8Array(Buffer.from(layer.weight, 'base64')));
    // The engine takes factors as scales.
    if (weights.length === 0 || weights.includes(-128) || !factor.every((each) => each > 0))
      throw damaged(block, 'int8');
    return { weight: weights, bias, rounding: { scale, shift, factor } };
  };
  return { features, layers: layers.map(decode), ...(score && { score: score.map(decode) }) };
}

function encodeFloats(values: Float32Array): string {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeFloatLE(value, 4 * i);
  return bytes.toString('base64');
}

function encodeBfloat16(values: Float32Array): string {
  const bytes = Buffer.alloc(2 * values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (const [i, word] of bits.entries()) bytes.writeUInt16LE(word >>> 16, 2 * i);
  return bytes.toString('base64');
}

function decodeFloats(block: string, text: string, dtype: 'float32' | 'bfloat16' = 'float32'): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  const size = dtype === 'float32' ? 4 : 2;
  const values = new Float32Array(Math.floor(bytes.length / size));
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < values.length; i++) {
    bits[i] = dtype === 'float32' ? bytes.readUInt32LE(4 * i) : bytes.readUInt16LE(2 * i) << 16;
  }
  if (bytes.length % size !== 0 || values.length === 0 || !values.every(Number.isFinite)) {
    throw damaged(block, dtype);
  }
  return values;
}

type ThreeArrays = [Float32Array, Float32Array, Float32Array];

const damaged = (block: string, dtype: string) =>
  new ResidualSkipError(
    'INVALID_POLICY',
    `policy: its head for block '${block}' does not hold finite ${dtype}; the file was changed or truncated`,
  );
