/** Prepared items and the programs that run them. */
import type { DataModel } from '../classify/data-model.js';
import { LengthSeries } from '../model/length-series.js';
import type { Program } from '../model/program/program.js';
import type { Binding, Model } from '../model/read/model.js';
import { bindFeeds } from '../session/feeds.js';
import type { LoadedFront } from '../session/fronts.js';
import { joining } from '../session/known-fronts.js';
import { Tensor, type TensorData } from '../tensor/tensor.js';
import { atOnce, type Sliced } from '../util/slices.js';
import { Programs } from './run/evaluator.js';

/** The network, behind its fronts, at the shapes of the items: texts of each length have a program of their own. */
export function programsOf(
  model: Model,
  opened: DataModel,
  typical: Tensor,
  fronts: readonly LoadedFront[] = [],
): Programs {
  const series = new LengthSeries(model);
  return shapedPrograms(model, opened, typical, (binding) =>
    joining(series.program(binding), fronts, binding),
  );
}

/**
 * The programs that one is compiled to for the inputs of a network, at the shapes of the items.
 * @param model the network
 */
export function shapedPrograms(
  model: Model,
  opened: DataModel,
  typical: Tensor,
  compiling: (binding: Binding) => Sliced<Program>,
): Programs {
  const compiled = (tensor: Tensor) => atOnce(compiling(bindFeeds(model, opened.feeds(tensor)).binding));
  const main = compiled(typical);
  if (opened.what === 'image' && main.inputs.length === 1) return new Programs(main);
  return new Programs(main, {
    programFor: (input) =>
      input.length === typical.size ? main : compiled(preparedOf(opened, input, typical)),
    inputsOf: (input) => {
      const { tensors } = bindFeeds(model, opened.feeds(preparedOf(opened, input, typical)));
      return main.inputs.map(({ name }) => tensors[name]!.data);
    },
  });
}

/** The prepared item with these elements; it may have another length than `typical`. */
export function preparedOf(opened: DataModel, input: TensorData, { type, dims }: Tensor): Tensor {
  const ofText = opened.what === 'text' ? [dims[0]!, input.length / dims[0]!] : dims;
  return new Tensor(type, input as never, opened.dimsOf?.(input.length) ?? ofText) as Tensor;
}
