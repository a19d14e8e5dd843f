/** Training data of heads: features of the residual stream behind blocks, all from one pass. */
import { Growth } from '../model/program/grow.js';
import type { Program } from '../model/program/program.js';
import { featureSteps } from '../skip/head.js';
import type { Place } from './places.js';

/** `program` with the inputs of a head at each place as additional outputs, in this order. */
export function withFeatures(program: Program, places: readonly Place[]): Program {
  const growth = new Growth(program);
  for (const { block: at, features } of places) {
    // The same block of the network at another shape has other values.
    const block = program.blocks.find(({ name }) => name === at.name)!;
    const name = `features behind ${block.name}`;
    const { steps, result } = featureSteps(growth, name, features, block.output);
    growth.insert(block.end, steps);
    growth.output(name, result);
  }
  return growth.build();
}
