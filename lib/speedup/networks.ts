/** The networks that a ladder can be made of: the user's own in float and in 8 bits, at lower resolutions, and given fronts. */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { DataModel } from '../classify/data-model.js';
import { ImageClassifier } from '../classify/image-classifier.js';
import type { Work } from '../classify/work.js';
import { readJson } from '../data/files.js';
import { findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { loadModel } from '../model/load.js';
import { PRECISIONS, type Precision, type ReducedPrecision } from '../model/program/program.js';
import type { Model } from '../model/read/model.js';
import { type QuantizeOptions, quantizeItems } from '../quantize/quantize.js';
import { LoadedFront } from '../session/fronts.js';
import type { FrontSpec } from '../skip/fronts.js';

/** A network and its file. */
export interface Network {
  /** Without an extension; unique among the networks of a ladder. */
  readonly name: string;
  readonly model: Model;
  /** The ONNX file. */
  bytes(): Promise<Uint8Array>;
  /** Files with weights of it, by their paths beside the ONNX file. */
  readonly external?: ReadonlyMap<string, () => Promise<Uint8Array>>;
  readonly precision: 'float' | ReducedPrecision | 'int8';
}

/** A network that can be put before another. */
export interface Candidate {
  readonly network: Network;
  readonly spec: FrontSpec;
  /** The user's own network at a lower resolution, which nobody asked for. */
  readonly lower?: true;
}

/** Of the 8-bit form of a network. */
const nameOfInt8 = (name: string) => `${name}-int8`;

/** Names of a network in float and in 8 bits. */
export const ownNames = ({ name }: Network) => [name, nameOfInt8(name)];

export async function floatNetwork(file: string): Promise<Network> {
  const model = await loadModel(file);
  const external = new Map(model.external.map((path) => [path, () => readFile(join(dirname(file), path))]));
  return { name: 'model', model, bytes: () => readFile(file), external, precision: 'float' };
}

const inPrecisionName = ({ name }: Network, precision: Precision) => `${name}-${precision}`;

/** The same file, which runs in bfloat16. */
export const inBfloat16 = (network: Network, precision: ReducedPrecision): Network => ({
  ...network,
  name: inPrecisionName(network, precision),
  precision,
});
/** The precision that the network's file runs in, if it isn't float32. */
export const reducedPrecision = ({ precision }: Network) =>
  precision === 'float' || precision === 'int8' ? undefined : precision;

/**
 * The network in 8 bits; undefined, with a note, where it can't be made.
 * @param items those that choose ranges: none that certifies
 */
export async function int8Network(
  name: string,
  file: string,
  items: Parameters<typeof quantizeItems>[1],
  options: Pick<QuantizeOptions, 'labels' | 'preprocessor' | 'isa' | 'threads'>,
  work: Work,
): Promise<Network | undefined> {
  try {
    const { model: bytes } = await quantizeItems(file, items, {
      ...options,
      onProgress: ({ stage, done, total }) => work.report(stage, done, total, nameOfInt8(name)),
      onNote: () => {},
    });
    const model = await loadModel(bytes);
    return { name: nameOfInt8(name), model, bytes: async () => bytes, precision: 'int8' };
  } catch (error) {
    if (!(error instanceof ResidualSkipError) || error.code === 'ABORTED') throw error;
    work.note(`${name}: there is no 8-bit form of it (${error.message})`);
    return undefined;
  }
}

/** Another form of the network, in front of it. Rounding changes its answers only where two classes are near, so the margin orders them. */
export const sameNetwork = (network: Network): Candidate => ({
  network,
  spec: specOf(network.name, network.name, network.model, { confidence: 'margin' }),
});

/** Sides of lower resolutions, as fractions, rounded to whole strides of 8 pixels. */
const SHRUNK = [5 / 7, 1 / 2];
const STRIDE = 8;
const MIN_SIDE = 16;

/** The network itself at lower resolutions: for images of a fixed size. */
export function lowerResolutions(network: Network): Candidate[] {
  const { model, name } = network;
  const [input, another] = model.inputs;
  const [, , height, width] = input?.shape ?? [];
  if (another || typeof height !== 'number' || typeof width !== 'number') return [];
  const sizes = SHRUNK.map((share) =>
    [height, width].map((side) => Math.round((share * side) / STRIDE) * STRIDE),
  );
  return sizes
    .filter((size) => size.every((side) => side >= MIN_SIDE))
    .filter((size, i, all) => size.join() !== all[i - 1]?.join())
    .map((size) => ({
      network,
      spec: specOf(`${name}-${size.join('x')}`, name, model, { size: size as [number, number] }),
      lower: true,
    }));
}

export function specOf(
  name: string,
  file: string,
  { sha256 }: Model,
  more: Partial<FrontSpec> = {},
): FrontSpec {
  return { name, file: `${file}.onnx`, sha256, ...more };
}

/** A network that the user gives: at its own size, with its own normalisation, its classes mapped by label. */
export class GivenFront {
  private constructor(
    readonly network: Network,
    readonly file: string,
    private readonly more: Partial<FrontSpec>,
  ) {}

  /**
   * Opens all of them before long work.
   * @throws what `open` throws
   */
  static async all(
    paths: readonly string[],
    float: Network,
    opened: DataModel,
    work: Work,
  ): Promise<GivenFront[]> {
    const forms = [...ownNames(float), ...PRECISIONS.map((precision) => inPrecisionName(float, precision))];
    const smaller = forms.flatMap((name) =>
      lowerResolutions({ ...float, name }).map(({ spec }) => spec.name),
    );
    const taken = new Set([...forms, ...smaller]);
    const fronts: GivenFront[] = [];
    for (const path of paths) {
      await noteOwnPolicy(`front ${path}`, path, work);
      const front = await GivenFront.open(path, opened, taken, work);
      const { sha256 } = front.network.model;
      if (sha256 === float.model.sha256)
        throw unfit(path, 'it is the model itself', 'give a network that is faster');
      if (fronts.some(({ network }) => network.model.sha256 === sha256))
        throw unfit(path, 'it is the same network as another front', 'give each once');
      fronts.push(front);
    }
    return fronts;
  }

  /**
   * @param path its ONNX file, or its folder
   * @param taken names of networks; its own is added
   * @throws ResidualSkipError INVALID_ARGUMENT for a network of other inputs or classes, and what loading it throws
   */
  static async open(path: string, opened: DataModel, taken: Set<string>, work: Work): Promise<GivenFront> {
    const { model: file, name: given, folder, labels } = await findModel(path);
    const name = unusedName(basename(given, '.onnx'), taken);
    const model = await loadModel(file);
    if (model.external.length > 0) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `front ${path}: its weights lie in other files (${model.external[0]}), which may be called as those of the model; store them in ` +
          'the ONNX file: onnx.save(onnx.load(file), file)',
      );
    }
    const network: Network = { name, model, bytes: () => readFile(file), precision: 'float' };
    if (!opened.images) {
      await checkTokenizer(path, folder, opened);
      const named = classesOf(path, labels && { labels, labelsKnown: true }, opened, work);
      return new GivenFront(network, file, named);
    }
    const front = await ImageClassifier.from(file, { policy: 'full', backend: 'reference' });
    try {
      return new GivenFront(network, file, {
        ...readingOf(path, front, opened.images, model),
        ...classesOf(path, front, opened, work),
      });
    } finally {
      await front.release();
    }
  }

  /** @param network this one, or its 8-bit form */
  candidate(network = this.network): Candidate {
    return { network, spec: specOf(network.name, network.name, network.model, this.more) };
  }
}

/** A search begins with networks alone. */
export async function noteOwnPolicy(what: string, path: string, work: Work): Promise<void> {
  const { policy } = await findModel(path);
  if (policy === undefined) return;
  work.note(`${what}: its own policy isn't used, only its network; exits and fronts are chosen again`);
}

/** A name whose 8-bit form is called like no other network either. */
function unusedName(wanted: string, taken: Set<string>): string {
  const forms = (name: string) => [name, nameOfInt8(name)];
  let name = wanted;
  for (let count = 2; forms(name).some((form) => taken.has(form)); count++) name = `${wanted}-${count}`;
  for (const form of forms(name)) taken.add(form);
  return name;
}

function unfit(path: string, problem: string, way: string): ResidualSkipError {
  return new ResidualSkipError('INVALID_ARGUMENT', `front ${path}: ${problem}; ${way}`);
}

/** How the front reads what is prepared for the network. */
function readingOf(
  path: string,
  front: ImageClassifier,
  own: ImageClassifier,
  { inputs }: Model,
): Partial<FrontSpec> {
  if (front.preprocessor.flips !== own.preprocessor.flips) {
    throw unfit(path, 'it reads the colours in another order than the model', 'give one of the same order');
  }
  const [, channels, height, width] = inputs[0]!.shape;
  const [, wanted, h, w] = own.session.inputMetadata[0]!.shape;
  if (channels !== wanted)
    throw unfit(path, `it reads ${channels} channels, and the model ${wanted}`, 'give another');
  const [to, from] = [front.preprocessor.normalisation, own.preprocessor.normalisation];
  const known = front.preprocessorKnown && own.preprocessorKnown;
  const scale = to.scale.map((factor, c) => factor / from.scale[c]!);
  const offset = to.offset.map((shift, c) => shift - from.offset[c]! * scale[c]!);
  const fixed = typeof height === 'number' && typeof width === 'number' && (height !== h || width !== w);
  const near = (list: readonly number[], value: number) => list.every((one) => Math.abs(one - value) < 1e-6);
  return {
    ...(fixed && { size: [height, width] }),
    ...(known && !near(scale, 1) && { scale }),
    ...(known && !near(offset, 0) && { offset }),
  };
}

/** A front reads the tokens that are made for the network. A tokenizer of its own must be the same; how texts are cut doesn't matter. */
async function checkTokenizer(path: string, folder: string, { file }: DataModel): Promise<void> {
  const [own, front] = await Promise.all(
    [dirname(file), folder].map(async (at) => {
      const {
        truncation: _,
        padding: __,
        ...rest
      } = (await readJson(join(at, 'tokenizer.json'), anyObject)) ?? {};
      return rest;
    }),
  );
  if (Object.keys(front!).length === 0 || isDeepStrictEqual(own, front)) return;
  throw unfit(
    path,
    'its tokenizer.json is another than that of the model',
    'give a front that reads the same tokens',
  );
}

const anyObject = z.looseObject({});

/** For each class of the front the network's, where they differ. */
function classesOf(
  path: string,
  front: Pick<ImageClassifier, 'labels' | 'labelsKnown'> | undefined,
  own: DataModel,
  work: Work,
): Partial<FrontSpec> {
  const labels = own.labels!;
  if (!front?.labelsKnown || !own.labelsKnown) {
    if (!front || front.labels.length === labels.length) {
      work.note(
        `front ${path}: its classes are taken for those of the model, in the same order, because config.json doesn't name both (id2label)`,
      );
      return {};
    }
    throw unfit(
      path,
      `it has ${front.labels.length} classes, the model ${labels.length}, and config.json doesn't name both`,
      'give networks whose classes have names (id2label), or the same number of classes',
    );
  }
  // A label that several classes have, such as two kinds of crane: the first means the first, and so on.
  const free = labels.map((label, index) => ({ label, index }));
  const classes = front.labels.map((label) => {
    const at = free.findIndex((one) => one.label === label);
    return at < 0 ? null : free.splice(at, 1)[0]!.index;
  });
  if (classes.every((to) => to === null)) {
    throw unfit(
      path,
      `none of its labels (${front.labels.slice(0, 3).join(', ')}, …) is one of the model's`,
      'give a network with the classes of the model',
    );
  }
  return classes.every((to, from) => to === from) && classes.length === labels.length ? {} : { classes };
}

/**
 * The candidates that can be compiled before a network, those of least work first; the others are noted.
 * @param workOf compiles a front before the network, and returns its multiply-adds
 */
export async function joinable(
  candidates: readonly Candidate[],
  network: Network,
  workOf: (front: LoadedFront) => number,
  work: Work,
): Promise<{ readonly candidate: Candidate; readonly front: LoadedFront }[]> {
  const found: {
    readonly candidate: Candidate;
    readonly front: LoadedFront;
    readonly multiplyAdds: number;
  }[] = [];
  let fixed = false;
  for (const candidate of candidates) {
    try {
      const front = await LoadedFront.of(candidate.spec, candidate.network.model, network.model);
      found.push({ candidate, front, multiplyAdds: workOf(front) });
    } catch (error) {
      if (!(error instanceof ResidualSkipError)) throw error;
      if (candidate.lower) fixed = true;
      else work.note(`${candidate.spec.name} can't be a front: ${error.message}`);
    }
  }
  // Those of its 8-bit form were tried with the float network, too.
  if (fixed && network.precision === 'float')
    work.note("lower resolutions aren't all tried: the network takes images of its own size alone");
  return found.sort((a, b) => a.multiplyAdds - b.multiplyAdds);
}
