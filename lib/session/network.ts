/** A network of a session, with what lowers its graph: all of that loads with this file. */
import { mayHaveExits } from '../model/blocks/may-decide.js';
import { LengthSeries } from '../model/length-series.js';
import { type LoadOptions, loadModel, reloading } from '../model/load.js';
import type { Program } from '../model/program/program.js';
import type { ModelLocation } from '../model/read/file.js';
import type { Binding, Model, ModelFacts } from '../model/read/model.js';
import { isUnseen, placeOf, type WeightFile } from '../tensor/recall.js';
import type { Sliced } from '../util/slices.js';
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
  /** Offsets, in the model's file, of large weights that nothing has looked at yet. */
  unseen(): Set<number>;
}

/** Lengths for symbolic dimensions by name. */
export type Overrides = { readonly [dimension: string]: number };

/** @throws what `loadModel` throws; INVALID_ARGUMENT for a dimension that no input has */
export async function loadNetwork(
  source: string | Uint8Array,
  overrides: Overrides,
  options: LoadOptions,
): Promise<OpenNetwork> {
  return networkOf(await loadModel(source, options), overrides);
}

/**
 * The network of a file that was read before.
 * @throws ResidualSkipError READ_FAILED when it has changed since
 */
export function* reloadNetwork(
  location: ModelLocation,
  file: WeightFile,
  overrides: Overrides,
): Sliced<OpenNetwork> {
  return networkOf(yield* reloading(location, file), overrides);
}

function networkOf(own: Model, overrides: Overrides): OpenNetwork {
  const model = overrideDimensions(own, overrides);
  const series = new LengthSeries(model);
  return {
    own,
    model,
    mayHaveExits: mayHaveExits(model.graph),
    ...(model.stages && { staged: model }),
    compiling: (binding) => series.compiling(binding),
    unseen: () => {
      const offsets = new Set<number>();
      for (const { data } of own.graph.constants.values())
        if (isUnseen(data)) offsets.add(placeOf(data)!.offset);
      return offsets;
    },
  };
}
