import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ImageClassifier, locateModel, ResidualSkipError } from 'residual-skip';
import { FULL, type Setting, settingFrom } from '../models/settings.js';
import { imageBytes } from './image-bytes.js';
import { type Binding, type BulkJob, type BulkResult, type ImageOptions, JobFailure, sha256 } from './job.js';

/** Failures that are worth a retry; an image that can't be decoded isn't. */
const PASSING = new Set(['OUT_OF_MEMORY', 'INTERNAL', 'ABORTED']);

interface LoadOptions extends ImageOptions {
  readonly policy?: string | undefined;
  readonly setting?: string;
  readonly original?: string | undefined;
  readonly threads?: number;
}

/** Answers the jobs of a queue with one model, in one setting. */
export class Answerer {
  private constructor(
    private readonly classifier: ImageClassifier,
    private readonly setting: Setting,
    readonly binding: Binding,
    private readonly images: ImageOptions,
  ) {}

  /**
   * @param policy `model`, `full` or a policy file; by default the `policy.json` of the model's folder, or else `model`
   * @param setting the limit of one of the file's settings; by default the file's own
   * @throws ResidualSkipError as ImageClassifier.from, and INVALID_ARGUMENT for a setting that the file doesn't have
   */
  static async load(
    model: string,
    { policy, setting: wanted, original, threads, privateUrls }: LoadOptions,
  ): Promise<Answerer> {
    const source = policy ?? (await locateModel(model))?.policy ?? 'model';
    const settings = source === 'full' ? [FULL] : await settingFrom(source);
    const setting = wanted === undefined ? settings[0]! : settings.find(({ name }) => name === wanted);
    if (setting === undefined) {
      const names = settings.map(({ name }) => name).join(', ');
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        `setting ${wanted}: policy ${source} doesn't have it; take one of ${names}`,
      );
    }
    // If it doesn't fit, the error about a folder's own policy names the files.
    const asked = (policy ?? wanted) === undefined ? undefined : setting.policy;
    const classifier = await ImageClassifier.from(model, { policy: asked, original, threads });
    const binding = {
      model: await classifier.session.sha256(),
      setting: setting.name,
      policy: sha256(JSON.stringify(setting.policy)),
      files: await hashOfFiles(classifier),
    };
    return new Answerer(classifier, setting, binding, { privateUrls });
  }

  /** @throws JobFailure */
  async answer(job: BulkJob): Promise<BulkResult> {
    const { bytes, hash } = await imageBytes(job, this.images);
    const options = { topK: 1, trace: true };
    const { label, index, probability, trace } = await this.classifier
      .classify(bytes, options)
      .catch((cause: Error & { code?: string }) => {
        const { code = 'INTERNAL' } = cause;
        // The classifier doesn't know the job's name.
        const message = cause.message.replace('images[0]', job.name);
        throw new JobFailure(code, message, PASSING.has(code), { cause });
      });
    const blocks = trace?.blocks ?? [];
    return {
      id: job.id,
      name: job.name,
      sha256: hash,
      label,
      index,
      probability,
      blocksSkipped: blocks.filter(({ ran }) => !ran).length,
      blocks: blocks.length,
      setting: this.setting.name,
      promise: this.setting.promise,
      model: this.binding.model,
    };
  }

  release(): Promise<void> {
    return this.classifier.release();
  }
}

/** Answers also depend on the labels and on the preprocessing. */
async function hashOfFiles({ file, labels }: ImageClassifier): Promise<string> {
  const own = dirname(file);
  const folder = basename(own) === 'onnx' ? dirname(own) : own;
  const preprocessor = await readFile(join(folder, 'preprocessor_config.json'), 'utf8').catch(() => null);
  return sha256(JSON.stringify([labels, preprocessor]));
}
