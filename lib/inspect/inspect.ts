/** Finds what can be skipped in a model. */
import { z } from 'zod';
import { findModel } from '../data/model-files.js';
import { gatesOutOfUse } from '../model/blocks/gates-out-of-use.js';
import { compileModel } from '../model/compile.js';
import { loadModel, unsupportedOperators } from '../model/load.js';
import type { OwnExit, Program, UnusableGate, ValueId } from '../model/program/program.js';
import type { Dimension, ModelPort } from '../model/read/graph.js';
import type { ModelMetadata } from '../model/read/metadata.js';
import { checkSource, type ModelSource } from '../session/source.js';
import { type BlockInfo, describeBlocks } from '../skip/block-info.js';
import { parseStrict } from '../util/validation.js';
import { bindingOf, type Shapes } from './shapes.js';

/** An input or output; a symbolic dimension is given by its name. */
export interface InspectedPort {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly Dimension[];
}

/** A residual block. */
export interface InspectedBlock extends Omit<BlockInfo, 'layers'> {
  /** Names of the tensors that the block reads and writes; those of the graph if it has them. */
  readonly input: string;
  readonly output: string;
}

/** An early exit in the graph. */
export interface InspectedExit {
  /** The last block in front of it. */
  readonly after: string;
  /** An item leaves when its score is at least this. */
  readonly threshold: number;
  /** For one item; not included in those of any block or of the model. */
  readonly multiplyAdds: number;
}

/** What `inspect` reports about a model. */
export interface Inspection {
  /** Path of the ONNX file; null when the model was given as bytes. */
  readonly model: string | null;
  /** Hex SHA-256 of the file. */
  readonly sha256: string;
  readonly opset: number;
  /** What the file's writer says about it. */
  readonly metadata: ModelMetadata;
  readonly inputs: readonly InspectedPort[];
  readonly outputs: readonly InspectedPort[];
  /** The shapes of the inputs that costs are for, by name; empty when operators are unsupported. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** Number of elements in all initialisers. */
  readonly parameters: number;
  /** For one item; null when operators are unsupported. */
  readonly multiplyAdds: number | null;
  readonly blocks: readonly InspectedBlock[];
  /** Early exits in the graph: an item leaves after the block when its score is at least the threshold. */
  readonly exits: readonly InspectedExit[];
  /** Gates in the graph that can't skip anything, and why; their nodes are computed. */
  readonly unusableGates: readonly UnusableGate[];
  /** Operators that can't be run, by name. */
  readonly unsupported: readonly string[];
  /** What mixes the items of a batch, so that a batch runs as one item; absent if nothing does. */
  readonly mixesBatch?: string;
}

/** Options of `inspect`. */
export interface InspectOptions {
  /**
   * Shapes of inputs by name, or the shape of the only input; costs depend on them. When left out, they are those that the
   * model declares, with a batch of one. What the model leaves open is given by the files beside it: heights and widths by
   * preprocessor_config.json, the number of tokens by the longest text that it takes.
   */
  shapes?: Shapes | undefined;
}

const dims = z.array(z.int({ error: 'expected whole numbers above 0' }).positive());
const optionsSchema = z.strictObject({ shapes: z.union([dims, z.record(z.string(), dims)]).optional() });

/**
 * Lists the residual blocks of a model, its gates, exits and costs, and the operators that can't be run. Nothing is run, and
 * unsupported operators are not an error.
 * @param source path of an ONNX file or of its folder, a `file:` URL, the bytes of the file, or a Blob
 * @throws ResidualSkipError MODEL_NOT_FOUND, READ_FAILED, MODEL_CORRUPT, MODEL_INVALID, EXTERNAL_DATA, INVALID_SHAPE when `shapes`
 * don't fit the model, INVALID_ARGUMENT when a dimension remains open
 */
export async function inspect(source: ModelSource, options: InspectOptions = {}): Promise<Inspection> {
  const { shapes = {} } = parseStrict(optionsSchema, options);
  const checked = checkSource(source);
  const files = typeof checked === 'string' ? await findModel(checked) : undefined;
  const bytes = checked instanceof Blob ? new Uint8Array(await checked.arrayBuffer()) : checked;
  const model = await loadModel(files?.model ?? bytes, { allowUnsupported: true });
  const unsupported = unsupportedOperators(model).map(({ op }) => op);
  const binding = unsupported.length > 0 ? undefined : await bindingOf(model, files, shapes);
  const program = binding && compileModel(model, binding);
  return {
    model: files?.model ?? null,
    sha256: model.sha256,
    opset: model.opset,
    metadata: model.metadata,
    inputs: model.inputs.map(portOf),
    outputs: model.outputs.map(portOf),
    shapes: Object.fromEntries([...(binding ?? [])].map(([name, { shape }]) => [name, shape])),
    parameters: model.parameters,
    multiplyAdds: program?.cost.multiplyAdds ?? null,
    blocks: program ? blocksOf(program) : [],
    exits: program?.ownExits?.list.map(exitOf) ?? [],
    unusableGates: program ? gatesOutOfUse(model, program) : [],
    unsupported,
    ...(model.batching === 'whole' && { mixesBatch: model.batchingReason ?? 'the graph' }),
  };
}

function portOf({ name, dtype, widened, shape }: ModelPort): InspectedPort {
  return { name, dtype: widened ?? dtype, shape };
}

function blocksOf(program: Program): InspectedBlock[] {
  const nameOf = (id: ValueId) => program.values[id]!.name;
  return describeBlocks(program).map(({ layers: _, ...block }, i) => {
    const { input, output } = program.blocks[i]!;
    return { ...block, input: nameOf(input), output: nameOf(output) };
  });
}

function exitOf({ after, threshold, cost }: OwnExit): InspectedExit {
  return { after, threshold, multiplyAdds: cost.multiplyAdds };
}
