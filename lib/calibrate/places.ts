/** Possible places of exits: the blocks, and the inputs of the heads there. */
import type { Block, Program, ValueId } from '../model/program/program.js';
import { type AnyExit, placeOf, workBeyond } from '../skip/attach.js';
import { type Features, isReadable, widthOf } from '../skip/head.js';
import { type Reading, readingOf } from './reading.js';

export interface Place {
  readonly block: Block;
  readonly features: Features;
  /** How many numbers those are. */
  readonly width: number;
  /** Fraction of the network's multiply-adds behind the block. */
  readonly saving: number;
}

/**
 * A head after less than this fraction of the network's work knows too little; one with less to save isn't
 * worthwhile.
 */
const [LEAST_DONE, LEAST_SAVING] = [0.1, 0.04];
/** Least fraction of the network's work between two exits: few images don't teach more exits to be worth what they cost. */
const [SPACING, DENSE] = [0.09, 0.05];
/** So many images teach dense exits. */
const MANY = 16_000;
/** Most inputs of a head; more would make fitting slow. */
const MOST_WIDTH = 3000;

/** The features that a head computes from a value, which fit how the network reads its last block; undefined if there are none. */
function featuresOf({ values }: Program, id: ValueId, reading: Reading | undefined): Features | undefined {
  const value = values[id]!;
  const { shape } = value;
  if (reading && reading.rank === shape.length && reading.axis === shape.length - 1) {
    // A class token has gathered little of the others in the first blocks.
    const rows = reading.first ? 'tokens' : 'rows';
    return isReadable(rows, value) ? rows : undefined;
  }
  return (['pyramid', 'grid', 'mean'] as const).find(
    (features) =>
      isReadable(features, value) && (features === 'mean' || widthOf(features, shape) <= MOST_WIDTH),
  );
}

/** Fraction of the network's multiply-adds from a step on, which is in no block. */
function savingAt(program: Program, at: number): number {
  const { blocks, cost } = program;
  const inside = blocks.filter(({ first }) => first >= at).map((later) => later.cost.multiplyAdds);
  return inside.reduce((sum, work) => sum + work, workBeyond(program, at)) / cost.multiplyAdds;
}

/** The saving of each of the exits. */
export function savingsOf(program: Program, exits: readonly AnyExit[]): number[] {
  return exits.map((exit) => savingAt(program, placeOf(program, exit)));
}

/**
 * Blocks behind which an exit is worthwhile, spread over the network's work.
 * @param images to learn from
 */
export function exitPlaces(program: Program, images: number): Place[] {
  const { blocks, values } = program;
  const spacing = images >= MANY ? DENSE : SPACING;
  const reading = readingOf(program);
  const places: Place[] = [];
  for (const block of blocks) {
    const saving = savingAt(program, block.end);
    const done = 1 - saving;
    const features = featuresOf(program, block.output, reading);
    if (!features || done < LEAST_DONE || saving < LEAST_SAVING) continue;
    places.push({ block, features, width: widthOf(features, values[block.output]!.shape), saving });
  }
  let next = Number.POSITIVE_INFINITY;
  return places.filter(({ saving }, i) => {
    // Most items leave late: the last place always has an exit.
    if (next - saving < spacing && i < places.length - 1) return false;
    next = saving;
    return true;
  });
}
