import { nativeInfo } from 'lib/backends/addon.js';
import { requestFor } from 'lib/backends/backend.js';
import { NativeBackend, type NativeOptions } from 'lib/backends/native.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import { Growth } from 'lib/model/program/grow.js';
import type { Program } from 'lib/model/program/program.js';
import { softmax } from 'lib/numeric/softmax.js';
import { attachExits } from 'lib/skip/attach.js';
import { BlockMode, decisionsFor } from 'lib/skip/compiled-policy.js';
import type { ExitSpec } from 'lib/skip/exits.js';
import { type Head, type Layer, widthOf } from 'lib/skip/head.js';
import { decodeExits, encodeExits } from 'lib/skip/head-codec.js';
import { featureSteps } from 'lib/skip/head-features.js';
import { Network } from '../../helpers/networks.js';
import { randomFloats } from '../../helpers/random.js';
import { runProgram } from '../../helpers/run-program.js';

const NETWORK = new Network('cifar10-resnet32');
const CLASSES = 10;

function layer(outputs: number, inputs: number, seed: number): Layer {
  return { weight: randomFloats(outputs * inputs, seed), bias: randomFloats(outputs, seed + 1) };
}

describe('heads in a program', () => {
  let program: Program;
  let exit: ExitSpec & { readonly head: Head };
  const input = randomFloats(3 * 32 * 32, 5);
  beforeAll(async () => {
    const model = await loadModel(NETWORK.model);
    program = compileModel(model, new Map([['input', { shape: [1, 3, 32, 32] }]]));
    const block = program.blocks[2]!;
    const channels = program.values[block.output]!.shape[1]!;
    const layers = [layer(6, 5 * channels, 1), layer(CLASSES, 6, 2)];
    exit = { after: block.name, threshold: 0, head: { features: 'grid', layers } };
  });

  test('an exit of two layers answers with what they say of quarters and maxima', () => {
    const { output, ran } = runProgram(attachExits(program, [exit]), [input]);
    expect(ran).toEqual(program.blocks.map((_, i) => Number(i <= 2)));

    const block = program.blocks[2]!;
    const growth = new Growth({ ...program, outputs: [] });
    const [, channels, height, width] = program.values[block.output]!.shape as [
      number,
      number,
      number,
      number,
    ];
    const shown = growth.value('shown', 'float32', [1, channels, height, width]);
    growth.insert(block.end, [{ op: 'reshape', inputs: [block.output], outputs: [shown], attrs: {} }]);
    growth.output('shown', shown);
    const map = runProgram(growth.build(), [input]).output;
    const features: number[] = [];
    const maxima: number[] = [];
    for (let c = 0; c < channels; c++) {
      const at = (y: number, x: number) => map[(c * height + y) * width + x]!;
      for (const top of [0, height / 2]) {
        for (const left of [0, width / 2]) {
          let sum = 0;
          for (let y = 0; y < height / 2; y++) {
            for (let x = 0; x < width / 2; x++) sum += at(top + y, left + x);
          }
          features.push((4 * sum) / (height * width));
        }
      }
      maxima.push(Math.max(...map.subarray(c * height * width, (c + 1) * height * width)));
    }
    features.push(...maxima);
    const apply = ({ weight, bias }: Layer, x: readonly number[]) =>
      [...bias].map((shift, k) =>
        x.reduce((sum, value, j) => sum + weight[k * x.length + j]! * value, shift),
      );
    const hidden = apply(exit.head.layers[0]!, features).map((sum) => Math.max(0, sum));
    for (const [k, expected] of apply(exit.head.layers[1]!, hidden).entries()) {
      expect(output[k]).toBeCloseTo(expected, 3);
    }
  });

  test('a layer of bytes rounds its inputs, and has the same bits on every instruction set', async () => {
    const [first, last] = exit.head.layers as [Layer, Layer];
    const inputs = first.weight.length / first.bias.length;
    const rounding = {
      scale: randomFloats(inputs, 11).map((x) => 40 * x),
      shift: randomFloats(inputs, 12),
      factor: Float32Array.from(first.bias, (_, k) => 0.001 * (k + 1)),
    };
    const weight = first.weight.map((x) => Math.round(127 * x));
    const bytes: ExitSpec = {
      ...exit,
      head: { ...exit.head, layers: [{ ...first, weight, rounding }, last] },
    };
    const grown = attachExits(program, [bytes]);
    const { output } = runProgram(grown, [input]);

    const growth = new Growth({ ...program, outputs: [] });
    const block = program.blocks[2]!;
    const { steps, result } = featureSteps(growth, 'seen', 'grid', block.output);
    growth.insert(block.end, steps);
    growth.output('seen', result);
    const seen = runProgram(growth.build(), [input]).output;
    const rounded = seen.map((x, j) => {
      const scaled = Math.fround(Math.fround(x * rounding.scale[j]!) + rounding.shift[j]!);
      return Math.min(127, Math.max(-128, Math.round(scaled)));
    });
    // Some are rounded, and some don't fit.
    expect(new Set(rounded).size).toBeGreaterThan(20);
    expect(rounded).toContain(127);
    const hidden = Array.from(first.bias, (bias, k) => {
      const sum = rounded.reduce((all, x, j) => all + weight[k * inputs + j]! * x, 0);
      return Math.max(0, rounding.factor[k]! * sum + bias);
    });
    for (const [k, bias] of last.bias.entries()) {
      const expected = hidden.reduce((sum, x, j) => sum + last.weight[k * hidden.length + j]! * x, bias);
      expect(output[k]).toBeCloseTo(expected, 3);
    }

    const answers: Float32Array[] = [];
    for (const isa of nativeInfo().isas) {
      const backend = new NativeBackend({ threads: 1, isa: isa as NativeOptions['isa'] });
      const compiled = backend.compileSync(grown);
      const request = requestFor(
        grown,
        1,
        decisionsFor(grown, () => BlockMode.run),
      );
      compiled.runSync({ ...request, inputs: [input] });
      answers.push(request.outputs[0] as Float32Array);
      compiled.release();
      await backend.release();
    }
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    for (const [k, expected] of output.entries()) expect(answers[0]![k]).toBeCloseTo(expected, 3);
    const other = {
      ...exit,
      head: {
        ...bytes.head!,
        layers: [{ ...first, rounding: { ...rounding, scale: rounding.factor } }, last],
      },
    };
    expect(() => attachExits(program, [other])).toThrow(/exit after .* maps .* numbers/);
  });

  test('an exit that reads an earlier one sees the hidden layer of that', () => {
    const [first, second] = [program.blocks[2]!, program.blocks[4]!];
    const shapeOf = (id: number) => program.values[id]!.shape;
    const inputs = widthOf('pyramid', shapeOf(second.output));
    const reading: ExitSpec & { readonly head: Head } = {
      ...{ after: second.name, reads: first.name, threshold: 0 },
      head: { features: 'pyramid', layers: [layer(4, inputs + 6, 3), layer(CLASSES, 4, 4)] },
    };
    const passed = { ...exit, threshold: 2 };
    const { output, ran } = runProgram(attachExits(program, [passed, reading]), [input]);
    expect(ran).toEqual(program.blocks.map((_, i) => Number(i <= 4)));

    // What both see, as outputs of a program without heads.
    const growth = new Growth({ ...program, outputs: [] });
    for (const [block, features] of [
      [second, 'pyramid'],
      [first, 'grid'],
    ] as const) {
      const { steps, result } = featureSteps(growth, block.name, features, block.output);
      growth.insert(block.end, steps);
      growth.output(block.name, result);
    }
    const seen = runProgram(growth.build(), [input]);
    const apply = ({ weight, bias }: Layer, x: readonly number[]) =>
      [...bias].map((shift, k) =>
        x.reduce((sum, value, j) => sum + weight[k * x.length + j]! * value, shift),
      );
    const relu = (x: number) => Math.max(0, x);
    const before = apply(exit.head.layers[0]!, [...seen.others[0]!]).map(relu);
    const hidden = apply(reading.head.layers[0]!, [...seen.output, ...before]).map(relu);
    for (const [k, expected] of apply(reading.head.layers[1]!, hidden).entries()) {
      expect(output[k]).toBeCloseTo(expected, 3);
    }
    expect(decodeExits(JSON.parse(JSON.stringify(encodeExits([exit, reading]))))).toEqual([exit, reading]);
  });

  test.each([
    ['none', (reading: ExitSpec) => [reading]],
    ['one behind it', (reading: ExitSpec, other: ExitSpec) => [{ ...reading, reads: other.after }, other]],
    ['itself', (reading: ExitSpec) => [{ ...reading, reads: reading.after }]],
  ])('an exit that reads %s is refused', (_, exitsOf) => {
    const reading = { ...exit, reads: 'another block' };
    const later = { ...exit, after: program.blocks[3]!.name };
    expect(() => attachExits(program, exitsOf(reading, later))).toThrow(
      /reads the exit behind block .*, but no exit there precedes it/,
    );
  });

  test('an exit of a network that ends in a softmax answers with probabilities', () => {
    const logits = runProgram(attachExits(program, [exit]), [input]).output;
    const [port] = program.outputs;
    const probabilities = program.values.length;
    const ended: Program = {
      ...program,
      values: [...program.values, { name: 'probabilities', dtype: 'float32', shape: [1, CLASSES] }],
      outputs: [{ ...port!, value: probabilities }],
      steps: [
        ...program.steps,
        { op: 'softmax', inputs: [port!.value], outputs: [probabilities], attrs: { axis: 1, log: false } },
      ],
    };
    const { output } = runProgram(attachExits(ended, [exit]), [input]);
    for (const [k, expected] of softmax(logits).entries()) expect(output[k]).toBeCloseTo(expected, 5);
  });

  test('a policy file holds heads bit by bit', () => {
    const text = JSON.stringify(encodeExits([exit]));
    expect(decodeExits(JSON.parse(text))).toEqual([exit]);
  });

  test.each([
    ['a first layer of another width', (head: Head) => ({ ...head, layers: head.layers.slice(1) })],
    ['too few outputs', (head: Head) => ({ ...head, layers: head.layers.slice(0, 1) })],
    ['other features', (head: Head) => ({ ...head, features: 'mean' as const })],
  ])('%s is refused', (_, changed) => {
    const wrong = { ...exit, head: changed(exit.head) };
    expect(() => attachExits(program, [wrong])).toThrow(/exit after .* maps .* numbers/);
  });
});
