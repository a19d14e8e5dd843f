import { basename, join } from 'node:path';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { type ModelLocation, requireModel } from '../model/read/file.js';
import { late } from '../util/late.js';
import { refuseMisspelt } from '../util/validation.js';
import type { SoundForm } from './arrays.js';
import { readJson } from './files.js';
import { type PreprocessorConfig, parsePreprocessor } from './preprocessor-config.js';
import type { PreprocessorPreset } from './presets.js';
import { preprocessorOfTimm, pretrainedSchema } from './timm-config.js';

/** A model file, and the contents of Hugging Face's files beside it. */
export interface ModelFiles extends ModelLocation {
  /** Name of the model for people: that of its folder if the file is called model.onnx, otherwise that of the file. */
  readonly name: string;
  /** From preprocessor_config.json, or else from timm's config.json. */
  readonly preprocessor?: { readonly config: PreprocessorConfig; readonly source: string };
  /** Of a network of sounds, from preprocessor_config.json. */
  readonly sounds?: SoundForm;
  /** Labels by class index, from config.json. */
  readonly labels?: readonly string[];
  /** What the network was trained for, from config.json: `single_label_classification`, `regression` and the like. */
  readonly problem?: string;
  /** The class of the network in Hugging Face's library, from config.json. */
  readonly architecture?: string;
}

const [CONFIG, PREPROCESSOR] = ['config.json', 'preprocessor_config.json'];

const configSchema = late(() =>
  z.looseObject({
    id2label: z
      .record(
        z.string().regex(/^\d+$/, { error: 'expected the index of a class as the key' }),
        z.union([z.string(), z.number()]).transform(String),
      )
      .optional(),
    problem_type: z.string().nullish(),
    architectures: z.array(z.string()).nullish(),
    pretrained_cfg: pretrainedSchema().nullish(),
  }),
);

/** What preprocessor_config.json says of networks of sounds, and of no others. */
const soundSchema = late(() =>
  z.looseObject({
    sampling_rate: z.number().positive(),
    do_normalize: z.boolean().nullish(),
  }),
);

/**
 * Finds a model named by its file or by its folder, see `locateModel`, and reads `preprocessor_config.json` and
 * `config.json` beside it.
 * @throws MODEL_NOT_FOUND, READ_FAILED, or INVALID_DATA naming the configuration file and its field
 */
export async function findModel(path: string): Promise<ModelFiles> {
  const location = await requireModel(path);
  const { model, folder } = location;
  const source = join(folder, PREPROCESSOR);
  const configFile = join(folder, CONFIG);
  const given = await readJson(source, z.unknown());
  const ofSounds = soundSchema().safeParse(given).data;
  const config =
    given === undefined || ofSounds ? undefined : parsePreprocessor(given, source, 'INVALID_DATA');
  const about = (await readJson(configFile, configSchema())) ?? {};
  refuseMisspelt(about, Object.keys(configSchema().shape), configFile, 'INVALID_DATA');
  const { id2label, problem_type: problem, architectures, pretrained_cfg: ofTimm } = about;
  const timm = given === undefined && ofTimm ? preprocessorOfTimm(ofTimm) : undefined;
  return {
    ...location,
    name: basename(model) === 'model.onnx' ? basename(folder) : basename(model),
    ...(config && { preprocessor: { config, source } }),
    ...(timm && { preprocessor: { config: timm, source: configFile } }),
    ...(ofSounds && {
      sounds: { rate: ofSounds.sampling_rate, normalizes: ofSounds.do_normalize ?? false },
    }),
    ...(id2label && { labels: labelList(id2label, configFile) }),
    ...(problem && { problem }),
    ...(architectures?.[0] !== undefined && { architecture: architectures[0] }),
  };
}

function labelList(id2label: Readonly<Record<string, string>>, file: string): string[] {
  const count = Object.keys(id2label).length;
  return Array.from({ length: count }, (_, index) => {
    const label = id2label[String(index)];
    if (label === undefined) {
      throw new ResidualSkipError(
        'INVALID_DATA',
        `${file}: id2label has ${count} entries but none for ${index}`,
      );
    }
    return label;
  });
}

/**
 * What a caller says of a network instead of the files beside it, as such files: name and content.
 * @param folder of the network
 */
export async function filesOf(
  {
    preprocessor,
    labels,
  }: {
    readonly preprocessor?: PreprocessorConfig | PreprocessorPreset | undefined;
    readonly labels?: readonly string[] | undefined;
  },
  folder: string,
): Promise<[string, () => Promise<Uint8Array>][]> {
  const about = labels && (await readJson(join(folder, CONFIG), configSchema()));
  const given = {
    ...(preprocessor && {
      [PREPROCESSOR]: typeof preprocessor === 'string' ? { preset: preprocessor } : preprocessor,
    }),
    ...(labels && { [CONFIG]: { ...about, id2label: { ...labels } } }),
  };
  return Object.entries(given).map(([name, data]) => [name, async () => bytesOf(data)]);
}

const bytesOf = (data: unknown) => Buffer.from(`${JSON.stringify(data, null, 2)}\n`);
