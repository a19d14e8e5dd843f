import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type InferenceSession, Tensor } from 'lib/index.js';
import { decodeModelProto, decodeTensorProto, type GraphProto } from 'lib/model/read/proto.js';
import { decodeTensor } from 'lib/model/read/tensor-proto.js';
import { widenFloat16 } from 'lib/numeric/float16.js';
import { asType, type DataType } from 'lib/tensor/tensor.js';
import { expectClose, type Tolerance } from '../helpers/compare.js';

/** Where Debian's libonnx-testdata puts ONNX's own backend tests. */
const FOLDER = process.env.RESIDUAL_SKIP_ONNX_TESTDATA ?? '/usr/share/libonnx-testdata/data';
const SUITES = ['node', 'pytorch-converted', 'pytorch-operator', 'simple'];

/** Of TensorProto.DataType. */
const FLOAT16 = 10;
const DOUBLE = 11;

/** What ONNX's own test runner allows where a case doesn't say otherwise. */
const DEFAULT_TOLERANCE = { rtol: 1e-3, atol: 1e-7 };

/** One folder of ONNX's backend tests. */
export interface Case {
  /** Suite and folder. */
  readonly name: string;
  readonly model: string;
  /** Folders with the inputs and outputs of one run each. */
  readonly dataSets: readonly string[];
  /** Operators of the graph and its subgraphs. */
  readonly operators: ReadonlySet<string>;
  readonly tolerance: Tolerance;
}

export const available = existsSync(join(FOLDER, 'node'));

function operatorsOf(graph: GraphProto | undefined, found = new Set<string>()): Set<string> {
  for (const { opType = '', domain = '', attribute = [] } of graph?.node ?? []) {
    found.add(domain ? `${domain}.${opType}` : opType);
    for (const { g } of attribute) operatorsOf(g, found);
  }
  return found;
}

function readCase(folder: string, name: string): Case {
  const model = join(folder, 'model.onnx');
  const dataSets = readdirSync(folder)
    .filter((entry) => entry.startsWith('test_data_set_'))
    .map((entry) => join(folder, entry));
  const settings = join(folder, 'data.json');
  const own = existsSync(settings) ? JSON.parse(readFileSync(settings, 'utf8')) : {};
  const { rtol, atol } = { ...DEFAULT_TOLERANCE, ...own };
  return {
    name,
    model,
    dataSets,
    operators: operatorsOf(decodeModelProto(readFileSync(model)).graph),
    tolerance: { relative: rtol, absolute: atol },
  };
}

export function readCases(): Case[] {
  return SUITES.flatMap((suite) =>
    readdirSync(join(FOLDER, suite))
      .sort()
      .map((folder) => readCase(join(FOLDER, suite, folder), `${suite}/${folder}`)),
  );
}

function readTensors(folder: string, kind: 'input' | 'output'): Tensor[] {
  const count = readdirSync(folder).filter((file) => basename(file).startsWith(`${kind}_`)).length;
  return Array.from({ length: count }, (_, i) => readTensor(join(folder, `${kind}_${i}.pb`)));
}

function readTensor(file: string): Tensor {
  const proto = decodeTensorProto(readFileSync(file));
  const { dtype, shape, data } = decodeTensor(proto);
  const make = (type: DataType, elements: unknown) => new Tensor(type, elements as Float32Array, shape);
  if (proto.dataType === FLOAT16) return make('float16', asType('float16', data));
  // Decoding rounds these to float32.
  if (proto.dataType === DOUBLE) {
    return make('float64', new Float64Array(Uint8Array.from(proto.rawData!).buffer));
  }
  return make(dtype, data);
}

function numbersOf({ type, data }: Tensor): ArrayLike<number | bigint> {
  return type === 'float16' ? widenFloat16(data) : data;
}

/** Runs all data sets of a case and fails where an output differs. */
export async function runCase({ dataSets, tolerance }: Case, session: InferenceSession): Promise<void> {
  for (const folder of dataSets) {
    const inputs = readTensors(folder, 'input');
    const feeds = session.inputNames.map((name, i) => [name, inputs[i]!]);
    const outputs = await session.run(Object.fromEntries(feeds));
    for (const [i, expected] of readTensors(folder, 'output').entries()) {
      const actual = outputs[session.outputNames[i]!]!;
      expect([actual.type, actual.dims]).toEqual([expected.type, expected.dims]);
      expectClose(numbersOf(actual), numbersOf(expected), tolerance);
    }
  }
}

/** ResNet-50 with constant weights; its input counts up from 0 to 1, as in ONNX's own test runner. */
export const lightResnet50 = {
  model: join(FOLDER, 'light', 'light_resnet50.onnx'),
  input(): Tensor {
    const size = 3 * 224 * 224;
    return new Tensor(
      'float32',
      new Float32Array(size).map((_, i) => i / size),
      [1, 3, 224, 224],
    );
  },
  output: () => readTensor(join(FOLDER, 'light', 'light_resnet50_output_0.pb')),
  tolerance: { relative: DEFAULT_TOLERANCE.rtol, absolute: DEFAULT_TOLERANCE.atol },
};
