import { dirname } from 'node:path';
import { ResidualSkipError } from '../errors.js';
import { sizeOf } from '../numeric/shapes.js';
import { FileIdentity, type WeightFile } from '../tensor/recall.js';
import { copyData } from '../tensor/tensor.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { analyseBatching } from './lower/batching.js';
import { type SplitGraph, splitGraph } from './lower/split.js';
import { isSupported, requireSupported } from './lower/unsupported.js';
import { type External, noteParts, readExternalAgain, readExternalData } from './read/external.js';
import {
  alignInPlace,
  hashed,
  type ModelFile,
  type ModelLocation,
  noteOffsets,
  readAgain,
  readModelFile,
} from './read/file.js';
import { firstLayerOf } from './read/first-layer.js';
import { BEGINNING_BYTES, kindOf, wayOut } from './read/foreign.js';
import { inlineFunctions } from './read/functions.js';
import type { Graph } from './read/graph.js';
import { metadataOf } from './read/metadata.js';
import type { Model } from './read/model.js';
import { type DecodedModel, decodeModel } from './read/onnx.js';
import { decodingModelProto, type GraphProto, type ModelProto } from './read/proto.js';
import { toNumber } from './read/tensor-proto.js';

export { unsupportedOperators } from './lower/unsupported.js';

export interface LoadOptions {
  /** Returns a model that can't run, so that it can be inspected. */
  readonly allowUnsupported?: boolean;
  /** Whether the file's hash is needed for certain; if not, it is computed when it is first read. Always, when left out. */
  readonly identified?: (location: ModelLocation) => boolean;
  /** Called with what was read of a file, before decoding changes its bytes. */
  readonly onRead?: (file: ModelFile) => Promise<void>;
}

/**
 * Reads and decodes an ONNX model and determines how its batches can run.
 * @param source path of the file or of its folder, see `locateModel`; or the file's bytes (external data needs a path)
 * @throws ResidualSkipError MODEL_NOT_FOUND, READ_FAILED, OUT_OF_MEMORY, MODEL_CORRUPT, MODEL_INVALID, EXTERNAL_DATA;
 * UNSUPPORTED_MODEL naming everything that is not implemented; INTERNAL for any other failure
 */
export async function loadModel(
  source: string | Uint8Array | ArrayBuffer,
  options: LoadOptions = {},
): Promise<Model> {
  try {
    return await load(source, options);
  } catch (error) {
    // A bad file ends here: what its checks have found is thrown as it is, and anything else is a defect.
    if (error instanceof ResidualSkipError) throw error;
    const model = typeof source === 'string' ? `model '${source}'` : 'model';
    const message = `${model}: reading it failed (${error}), which is a defect; please report it with the model`;
    throw new ResidualSkipError('INTERNAL', message, { cause: error });
  }
}

async function load(source: string | Uint8Array | ArrayBuffer, options: LoadOptions): Promise<Model> {
  const file = typeof source === 'string' ? await readModelFile(source, options.identified) : undefined;
  if (file) await options.onRead?.(file);
  const { bytes, sha256 } = file ?? (await copied(source as Uint8Array | ArrayBuffer));
  const decoded = await decode(bytes, file);
  // Networks that were trained apart may differ only in what lies beside their files.
  const { files } = decoded.external;
  const alone = files.size === 0;
  const identity = new FileIdentity((alone && sha256) || [file!.file, ...files.values()]);
  if (sha256 !== undefined) await identity.identify();
  return inTurns(modelOf(decoded, identity, file, options.allowUnsupported));
}

/**
 * The model of files that were loaded before; what must be read is read on the calling thread.
 * @param external those with weights, by the paths that the model names
 * @throws ResidualSkipError READ_FAILED when a file has changed since
 */
export function* reloading(
  location: ModelLocation,
  file: WeightFile,
  external: ReadonlyMap<string, WeightFile>,
): Sliced<Model> {
  const again = readAgain(location, file);
  const proto = yield* decodingProto(again.bytes);
  const decoded = yield* decoding(proto, yield* readExternalAgain(proto, external), again);
  return yield* modelOf(decoded, new FileIdentity([file, ...external.values()]), again);
}

function* modelOf(
  { proto, opset, graph, external }: Decoded,
  identity: FileIdentity,
  file: ModelFile | undefined,
  allowUnsupported = false,
): Sliced<Model> {
  const runnable = isSupported(graph);
  if (!runnable && !allowUnsupported) requireSupported(graph);
  return {
    get sha256() {
      return identity.sha256;
    },
    identify: () => identity.identify(),
    ...(file && { location: file.location }),
    external: [...external.files.keys()],
    externalFiles: external.files,
    externalOverlap: external.overlap,
    opset,
    metadata: metadataOf(proto),
    ...(yield* analysed(graph, opset, runnable)),
    parameters: parametersOf(proto.graph),
    firstLayer: firstLayerOf(graph),
  };
}

type Analysed = Pick<
  Model,
  'graph' | 'stages' | 'inputs' | 'outputs' | 'batching' | 'batchingReason' | 'loweredItems'
>;

/** The graph, cut where lengths depend on elements, and how its batches can run. */
function* analysed(graph: Graph, opset: number, runnable: boolean): Sliced<Analysed> {
  const split = runnable ? splitGraph(graph) : undefined;
  try {
    if (split) return yield* inStages(graph, split, opset);
    return { graph, ...(yield* analyseBatching(graph, opset, runnable)) };
  } catch (error) {
    // Something else than a number of results may be computed from the inputs.
    const further = runnable && isUnsupported(error) ? splitGraph(graph, true) : undefined;
    if (!further) throw error;
    return yield* inStages(graph, further, opset);
  }
}

const isUnsupported = (error: unknown) =>
  error instanceof ResidualSkipError && error.code === 'UNSUPPORTED_MODEL';

function* inStages(graph: Graph, { body, stages }: SplitGraph, opset: number): Sliced<Analysed> {
  const first = stages[0]!.graph.nodes[0]!;
  const mixes = `node '${first.name}' (${first.op}) has a result whose length depends on the input's elements`;
  const batching = yield* analyseBatching(body, opset, true, mixes);
  return {
    ...batching,
    ...{ graph: body, stages },
    outputs: graph.outputs.map((port) => ({ ...port, batched: false })),
  };
}

/** The caller may change its bytes while the model is decoded, but what is decoded must be what was hashed. */
async function copied(source: Uint8Array | ArrayBuffer) {
  const bytes = copyData(source instanceof Uint8Array ? source : new Uint8Array(source)) as Uint8Array;
  return { bytes, sha256: await inTurns(hashed(bytes)) };
}

interface Decoded extends DecodedModel {
  readonly proto: ModelProto;
  /** What lies in other files. */
  readonly external: External;
}

async function decode(bytes: Uint8Array, file: ModelFile | undefined): Promise<Decoded> {
  // Alignment moves bytes of the file.
  const beginning = Uint8Array.from(bytes.subarray(0, BEGINNING_BYTES));
  try {
    const proto = await inTurns(decodingProto(bytes));
    const external = await readExternalData(proto, file && dirname(file.location.model), true);
    return await inTurns(decoding(proto, external, file));
  } catch (error) {
    if (!(error instanceof ResidualSkipError) || error.code !== 'MODEL_CORRUPT') throw error;
    const subject = file ? `model '${file.location.model}'` : 'model';
    const kind = kindOf(beginning);
    const what = kind ? `it seems to be ${kind}` : error.message;
    const message = `${subject}: the bytes are not an ONNX model (${what}); ${wayOut(kind)}`;
    throw new ResidualSkipError('MODEL_CORRUPT', message, { cause: error });
  }
}

function* decodingProto(bytes: Uint8Array): Sliced<ModelProto> {
  return yield* inlineFunctions(yield* decodingModelProto(bytes));
}

function* decoding(proto: ModelProto, external: External, file: ModelFile | undefined): Sliced<Decoded> {
  const { data, parts } = external;
  const aligned = yield* alignInPlace(proto, file);
  const decoded = yield* decodeModel(proto, new Map([...aligned, ...data]));
  if (file) noteOffsets(decoded.graph.constants.values(), aligned, file);
  noteParts(decoded.graph.constants.values(), parts);
  return { proto, ...decoded, external };
}

/** Elements of all initialisers; decoding has checked their shapes. */
function parametersOf({ initializer = [], node = [] }: GraphProto = {}): number {
  const own = initializer.map(({ dims = [] }) => sizeOf(dims.map(toNumber)));
  const nested = node.flatMap(({ attribute = [] }) => attribute.map(({ g }) => (g ? parametersOf(g) : 0)));
  return [...own, ...nested].reduce((sum, count) => sum + count, 0);
}
