/**
 * Makes a user's network as fast as his promise allows: `residual-skip speedup` as a function. It tries 8 bits, exits, lower resolutions,
 * given fronts and their combinations on the items that order, and certifies the fastest, with and without exits, on items that were used for
 * nothing else.
 */
import { NativeBackend } from '../backends/native.js';
import { withThumbnails } from '../calibrate/calibrate.js';
import { type Promisable, promisable } from '../calibrate/checks.js';
import { itemOptions, readItems } from '../calibrate/data.js';
import { programsOf } from '../calibrate/prepared.js';
import { ResumableBackend } from '../calibrate/run/resume.js';
import { type Data, openDataModel } from '../classify/data-model.js';
import { dataShape } from '../classify/images.js';
import { taskShape } from '../classify/task.js';
import { Unusable } from '../classify/unusable.js';
import { Work, workShape } from '../classify/work.js';
import { filesOf, findModel } from '../data/model-files.js';
import { ResidualSkipError } from '../errors.js';
import { isVectorMetric, type Metric } from '../skip/promise.js';
import { parsePart } from '../util/validation.js';
import { floatNetwork, GivenFront, noteOwnPolicy } from './networks.js';
import { type SpeedupOptions, speedupShape } from './options.js';
import { type Found, Search } from './search.js';

/** The result of `speedup`. */
export interface Speedup extends Found {
  readonly minutes: number;
}

const ALL_OPTIONS = { ...speedupShape, ...dataShape(), ...taskShape(), ...workShape() };

/**
 * Makes a ladder that is faster than the network, with a certified limit on changed answers; see docs/ladders.md.
 * @param model ONNX file, or a folder with one, of a network of images or texts with classes
 * @param data as for `calibrate`: a part of it chooses, the rest certifies
 * @returns the ladder; `writeLadder` writes its folder
 * @throws ResidualSkipError what `calibrate` throws; INVALID_ARGUMENT for a front that doesn't fit the model
 */
export async function speedup(model: string, data: Data, options: SpeedupOptions = {}): Promise<Speedup> {
  const start = performance.now();
  const { own, rest } = parsePart(ALL_OPTIONS, options);
  const work = new Work('speedup', own);
  work.check();
  const { maxPixels } = own;
  const preparing = { ...rest, backend: 'reference' as const, maxPixels, onNote: work.note };
  const opened = await openDataModel(model, preparing, own.task);
  const engine = new NativeBackend({ isa: rest.isa, threads: rest.threads });
  const unusable = new Unusable([], opened.what);
  try {
    const metric: Metric = own.metric ?? 'disagreement';
    if (!opened.labels)
      throw refused(`it is for networks that answer with a class, and ${opened.name} doesn't`);
    if (isVectorMetric(metric))
      throw refused(`its metrics are disagreement, accuracy and probability, not '${metric}'`);
    const float = await floatNetwork(opened.file);
    await noteOwnPolicy('model', model, work);
    const given = await GivenFront.all(own.front ?? [], float, opened, work);
    const asked = { ...own, metric };
    let promised: Promisable | undefined;
    const read = await readItems(opened, data, asked, work, (first, labelled) => {
      const { main } = programsOf(float.model, opened, first);
      promised = { ...promisable(asked, opened, main, labelled), byBlocks: false };
    });
    const programs = programsOf(float.model, opened, read.typical);
    const prepared = await itemOptions(opened, read, asked, promised!, programs, work, unusable);
    const backend = own.state === undefined ? engine : await ResumableBackend.open(engine, own.state);
    const end = start + 60_000 * (own.minutes ?? Number.POSITIVE_INFINITY);
    const setup = { opened, read, work, engine, backend, prepared, programs, float, given, end };
    const search = new Search({ ...setup, exits: own.exits ?? true });
    const result = await search.run(own, rest);
    const { calibration } = result;
    return {
      ...result,
      files: new Map([
        ...result.files,
        ...(calibration ? await filesOf(rest, (await findModel(model)).folder) : []),
      ]),
      calibration: calibration && (await withThumbnails(calibration, read.byHash)),
      minutes: (performance.now() - start) / 60_000,
    };
  } finally {
    unusable.noteFit(work.note);
    engine.release();
    await opened.session.release();
  }
}

function refused(why: string): ResidualSkipError {
  return new ResidualSkipError(
    'INVALID_ARGUMENT',
    `speedup: ${why}; calibrate takes other answers and metrics`,
  );
}
