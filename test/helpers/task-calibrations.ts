/** What the calibrations of task networks have in common. */
import { join } from 'node:path';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { folderOf } from './files.js';
import { type FormName, taskNetwork } from './task-networks.js';

/** The file of a network. */
export const pathOf = (form: FormName) =>
  join(folderOf({ 'net.onnx': taskNetwork(form, form === 'audio' ? 5 : 1) }), 'net.onnx');
export const QUICK = { threads: 1, onNote: () => {} } as const;
/** The most that the mean of `items` fresh losses is above their expectation, but for one in a million (Hoeffding). */
export const slack = (items: number) => Math.sqrt(Math.log(1e6) / (2 * items));

/** The loss as a function. */
export const byVectors: CalibrateOptions = {
  loss: (full, skipped) =>
    Math.min(1, Math.abs(Number(full.numbers!.data[0]) - Number(skipped.numbers!.data[0]))),
};
