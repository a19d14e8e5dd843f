/** Where exits may be: behind which blocks, and what the heads there read. */

import { Growth } from '../../model/program/grow.js';
import type { Block, Program, ValueId } from '../../model/program/program.js';
import { type AnyExit, placeOf, workBeyond } from '../../skip/exits.js';
import { isReadable, type RowFeatures, widthOf } from '../../skip/head.js';
import { featureSteps } from '../../skip/head-features.js';
import { ratioOf, tailOf } from '../../skip/map-head.js';
import { type Reading, readingOf } from './reading.js';

interface Point {
  readonly block: Block;
  /** Fraction of the network's multiply-adds behind the block. */
  readonly saving: number;
}

export interface ExitPoint extends Point {
  readonly features: RowFeatures;
  /** How many numbers those are. */
  readonly width: number;
}

/**
 * A head after less than this fraction of the network's work knows too little; one with less to save isn't
 * worthwhile.
 */
const [MIN_DONE, MIN_SAVING] = [0.1, 0.04];
/** Least fraction of the network's work between two exits: with few images, more exits don't learn enough to be worth what they cost. */
const [SPACING, DENSE] = [0.09, 0.05];
/** From this many images on, exits are dense. */
const MANY = 16_000;
/** Most inputs of a head; more would make fitting slow. */
const MAX_WIDTH = 3000;

/** The features that a head computes from a value, which fit how the network reads its last block; undefined if there are none. */
function featuresOf(
  { values }: Program,
  id: ValueId,
  reading: Reading | undefined,
  maxWidth: number,
): RowFeatures | undefined {
  const value = values[id]!;
  const { shape } = value;
  if (reading && reading.rank === shape.length && reading.axis === shape.length - 1) {
    // A class token has gathered little of the others in the first blocks.
    const rows = reading.first ? 'tokens' : 'rows';
    return isReadable(rows, value) ? rows : undefined;
  }
  // Of three axes, only how they are read says which one is the channels'.
  if (shape.length === 3 && (reading?.rank !== 3 || reading.axis !== 1)) return undefined;
  return (['pyramid', 'grid', 'mean'] as const).find(
    (features) =>
      isReadable(features, value) && (features === 'mean' || widthOf(features, shape) <= maxWidth),
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
 * @param maxWidth most inputs of a head, where there is a choice
 */
export function exitPoints(program: Program, images: number, maxWidth = MAX_WIDTH): ExitPoint[] {
  const { values } = program;
  const reading = readingOf(program);
  const points = worthwhile(program).flatMap((point): ExitPoint[] => {
    const { output } = point.block;
    const features = featuresOf(program, output, reading, maxWidth);
    return features ? [{ ...point, features, width: widthOf(features, values[output]!.shape) }] : [];
  });
  return spread(points, images);
}

/** The same of exits that answer with a map. */
export function mapPoints(program: Program, images: number): Point[] {
  const { values } = program;
  const tail = tailOf(program);
  if (!tail) return [];
  const points = worthwhile(program).filter(({ block }) => {
    const { dtype, shape } = values[block.output]!;
    return dtype === 'float32' && shape.length === 4 && ratioOf(shape, values[tail.map]!.shape) !== undefined;
  });
  return spread(points, images);
}

/** Blocks behind which an exit knows and saves enough. */
function worthwhile(program: Program): Point[] {
  return program.blocks
    .map((block) => ({ block, saving: savingAt(program, block.end) }))
    .filter(({ saving }) => 1 - saving >= MIN_DONE && saving >= MIN_SAVING);
}

function spread<P extends Point>(points: readonly P[], images: number): P[] {
  const spacing = images >= MANY ? DENSE : SPACING;
  let next = Number.POSITIVE_INFINITY;
  return points.filter(({ saving }, i) => {
    // Most items leave late: the last point always has an exit.
    if (next - saving < spacing && i < points.length - 1) return false;
    next = saving;
    return true;
  });
}

/** `program` with the inputs of a head at each exit point as additional outputs, in this order. */
export function withFeatures(program: Program, points: readonly ExitPoint[]): Program {
  const growth = new Growth(program);
  for (const { block: at, features } of points) {
    // The same block of the network at another shape has other values.
    const block = program.blocks.find(({ name }) => name === at.name)!;
    const name = `features behind ${block.name}`;
    const { steps, result } = featureSteps(growth, name, features, block.output);
    growth.insert(block.end, steps);
    growth.output(name, result);
  }
  return growth.build();
}
