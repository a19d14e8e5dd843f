/** Where exits may be: behind which blocks, and what their heads see there. */
import type { Block, Program, ValueId } from '../model/program.js';
import { workBeyond } from '../skip/attach.js';
import { type Features, widthOf } from '../skip/head.js';

export interface Place {
  readonly block: Block;
  readonly features: Features;
  /** How many numbers those are. */
  readonly width: number;
  /** Of the network's multiply-adds, those behind the block. */
  readonly saving: number;
}

/** A head that sees less than this share of the network's work knows nothing yet; one with less to save isn't worth it. */
const [LEAST_DONE, LEAST_SAVING] = [0.1, 0.04];
/** Shares of the network's work from one exit to the next, at least: more exits would cost more than they save. */
const SPACING = 0.09;
/** A head sees no more numbers than this, or it would take long to fit. */
const MOST_WIDTH = 3000;

/** What a head sees of a value; undefined when it is no map of float32 [N, C, height, width]. */
function featuresOf({ values }: Program, id: ValueId): Features | undefined {
  const { shape, dtype } = values[id]!;
  if (shape.length !== 4 || dtype !== 'float32') return undefined;
  const [, , height = 0, width = 0] = shape;
  if (height < 2 || width < 2) return 'mean';
  return (['pyramid', 'grid'] as const).find((features) => widthOf(features, shape) <= MOST_WIDTH) ?? 'mean';
}

/** Of the network's multiply-adds, those behind a block. */
function savingBehind(program: Program, block: Block): number {
  const { blocks, cost } = program;
  const inside = blocks.slice(blocks.indexOf(block) + 1).map((later) => later.cost.multiplyAdds);
  return inside.reduce((sum, work) => sum + work, workBeyond(program, block)) / cost.multiplyAdds;
}

/** Of each exit that the model has of its own. */
export function ownSavings(program: Program): number[] {
  const blockOf = (name: string) => program.blocks.find((block) => block.name === name)!;
  return (program.exits?.list ?? []).map(({ after }) => savingBehind(program, blockOf(after)));
}

/** Blocks behind which an exit is worth while, spread over the network's work. */
export function exitPlaces(program: Program): Place[] {
  const { blocks, values } = program;
  const places: Place[] = [];
  for (const block of blocks) {
    const saving = savingBehind(program, block);
    const done = 1 - saving;
    const features = featuresOf(program, block.output);
    if (!features || done < LEAST_DONE || saving < LEAST_SAVING) continue;
    places.push({ block, features, width: widthOf(features, values[block.output]!.shape), saving });
  }
  let next = Number.POSITIVE_INFINITY;
  return places.filter(({ saving }, i) => {
    // Most items leave late: the last place has an exit in any case.
    if (next - saving < SPACING && i < places.length - 1) return false;
    next = saving;
    return true;
  });
}
