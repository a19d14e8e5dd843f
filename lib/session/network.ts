/** A network of a session, with what lowers its graph: all of that loads with this file. */
import { mayHaveExits } from '../model/blocks/may-decide.js';
import { LengthSeries } from '../model/length-series.js';
import { type LoadOptions, loadModel, reloading } from '../model/load.js';
import type { Program } from '../model/program/program.js';
import type { ModelLocation } from '../model/read/file.js';
import type { Binding, Model, ModelFacts } from '../model/read/model.js';
import { isUnseen, placeOf, type WeightFile } from '../tensor/recall.js';
import { inTurns, type Sliced } from '../util/slices.js';
import { overrideDimensions } from './feeds.js';

export interface Network {
  readonly model: ModelFacts;
  /** If false, one program serves all policies without exits. */
  readonly mayHaveExits: boolean;
  /** The model with its graph, if stages follow its program. */
  readonly staged?: Model | undefined;
  /** Its program for concrete shapes. */
  compiling(binding: Binding): Sliced<Program>;
}

/** One whose graph is there. */
export interface OpenNetwork extends Network {
  /** The model as its file has it. */
  readonly own: Model;
  /** Large weights that nothing has looked at yet, by the file that they are in: their bytes by offset. */
  unseen(): Map<WeightFile, Map<number, number>>;
}

/** Lengths for symbolic dimensions by name. */
export type Overrides = { readonly [dimension: string]: number };

/** How a file's graph becomes that of the network. */
export interface Reading {
  readonly overrides?: Overrides;
  readonly front?: {
    /** What its programs depend on besides its file and their shapes: plain data. */
    readonly key: unknown;
    /** The model with the graph that reads the inputs of the network behind it. */
    model(own: Model): Sliced<Model>;
  };
}

/** @throws what `loadModel` and the reading of a front throw; INVALID_ARGUMENT for a dimension that no input has */
export async function loadNetwork(
  source: string | Uint8Array,
  reading: Reading,
  options: LoadOptions,
): Promise<OpenNetwork> {
  return inTurns(networkOf(await loadModel(source, options), reading));
}

/**
 * The network of files that were read before.
 * @param external those with weights, by the paths that the model names
 * @throws ResidualSkipError READ_FAILED when one has changed since
 */
export function* reloadNetwork(
  location: ModelLocation,
  file: WeightFile,
  external: ReadonlyMap<string, WeightFile>,
  reading: Reading,
): Sliced<OpenNetwork> {
  return yield* networkOf(yield* reloading(location, file, external), reading);
}

function* networkOf(own: Model, { overrides = {}, front }: Reading): Sliced<OpenNetwork> {
  const model = front ? yield* front.model(own) : overrideDimensions(own, overrides);
  const series = new LengthSeries(model);
  return {
    own,
    model,
    mayHaveExits: mayHaveExits(model.graph),
    ...(model.stages && { staged: model }),
    compiling: (binding) => series.compiling(binding),
    unseen: () => {
      const found = new Map<WeightFile, Map<number, number>>();
      for (const { data } of own.graph.constants.values()) {
        if (!isUnseen(data)) continue;
        const { file, offset } = placeOf(data)!;
        const inFile = found.get(file) ?? new Map<number, number>();
        found.set(file, inFile.set(offset, data.byteLength));
      }
      return found;
    },
  };
}
