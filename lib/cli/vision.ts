/** What `run` shows of networks that find objects, or give each pixel a class. */
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import type { DataModel } from '../classify/data-model.js';
import type { WholeImage } from '../classify/image-classifier.js';
import { type DetectedObject, ObjectDetector } from '../classify/object-detector.js';
import { type SegmentedClass, Segmenter } from '../classify/segmenter.js';
import { architectureTask } from '../classify/task.js';
import { ResidualSkipError } from '../errors.js';
import { partsOf } from '../skip/promise.js';
import { percent } from './table.js';

/** What a network finds in an image. */
export interface VisionAnswer {
  /** For a network that finds objects, the highest score first. */
  readonly objects?: readonly DetectedObject[];
  /** For a network that gives each pixel a class, the largest first. */
  readonly classes?: readonly SegmentedClass[];
}

/** @returns undefined for networks of other tasks */
export function visionOf({ images, session, architecture, task }: DataModel, output: string | undefined) {
  const { promise } = session.policy;
  const metric = promise && partsOf(promise.metric).name;
  const known = task ?? architectureTask(architecture);
  const { outputMetadata } = session;
  const map = outputMetadata.find(({ name, shape }) => name === images?.output && shape.length === 4);
  // A map of numbers may be anything; one with a channel for each label has classes.
  const hasLabels = images?.labelsKnown && images.labels.length === map?.shape[1];
  const isMap = map !== undefined && (hasLabels || output !== undefined);
  const finds =
    known === 'detection' || metric === 'boxes' || outputMetadata.some(({ name }) => /boxes$/.test(name));
  const segments = known === 'segmentation' || metric === 'pixels' || metric === 'miou' || isMap;
  if (output !== undefined && (finds || !segments || !images)) {
    throw new ResidualSkipError(
      'INVALID_ARGUMENT',
      '--output: it is for networks that give each pixel a class',
    );
  }
  if (!images) return undefined;
  if (finds) {
    const detector = ObjectDetector.over(images);
    return async ({ tensor, ...size }: WholeImage): Promise<VisionAnswer> => {
      const outputs = await session.run(images.feeds(tensor));
      return { objects: detector.objectsOf(outputs, size) };
    };
  }
  if (!segments) return undefined;
  const segmenter = Segmenter.over(images);
  return async ({ tensor, ...size }: WholeImage, path: string): Promise<VisionAnswer> => {
    const found = await segmenter.segmentationOf(await session.run(images.feeds(tensor)), size);
    if (output !== undefined) {
      await mkdir(output, { recursive: true });
      await writeFile(join(output, `${basename(path, extname(path))}.png`), await found.toPng());
    }
    return { classes: found.classes };
  };
}

/** In one cell of a table. */
export function wordVision({ objects = [], classes = [] }: VisionAnswer): string {
  const words = [
    ...objects.map(({ label, score }) => `${label} ${percent(score, 0)}`),
    ...classes.map(({ label, share }) => `${label} ${percent(share, 0)}`),
  ];
  return words.length > 6
    ? `${words.slice(0, 6).join(', ')} and ${words.length - 6} more`
    : words.join(', ') || 'nothing';
}
