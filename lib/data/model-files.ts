import { basename, dirname, extname, join } from 'node:path';
import { z } from 'zod';
import { ResidualSkipError } from '../errors.js';
import { kindOf, listFolder, readJson } from './files.js';
import { type PreprocessorConfig, preprocessorConfigSchema } from './preprocess.js';

/** A model file, and the contents of Hugging Face's files beside it. */
export interface ModelFiles {
  /** The ONNX file. */
  readonly model: string;
  /** Where the files beside it are: its folder, or the one above if that is called onnx. */
  readonly folder: string;
  /** Name of the model for people: that of its folder if the file is called model.onnx, otherwise that of the file. */
  readonly name: string;
  readonly preprocessor?: { readonly config: PreprocessorConfig; readonly source: string };
  /** Labels by class index, from config.json. */
  readonly labels?: readonly string[];
  /** What the network was trained for, from config.json: `single_label_classification`, `regression` and the like. */
  readonly problem?: string;
}

const configSchema = z.looseObject({
  id2label: z
    .record(z.string().regex(/^\d+$/, { error: 'expected the index of a class as the key' }), z.string())
    .optional(),
  problem_type: z.string().nullish(),
});

/**
 * Finds a model named by its file or by its folder (`model.onnx`, `onnx/model.onnx`, or the only `.onnx` file of
 * the folder), and reads `preprocessor_config.json` and `config.json` beside it.
 * @throws MODEL_NOT_FOUND, or INVALID_DATA naming the configuration file and its field
 */
export async function findModel(path: string): Promise<ModelFiles> {
  const model = await modelFile(path);
  const own = dirname(model);
  const folder = basename(own) === 'onnx' ? dirname(own) : own;
  const source = join(folder, 'preprocessor_config.json');
  const configFile = join(folder, 'config.json');
  const config = await readJson(source, preprocessorConfigSchema);
  const { id2label, problem_type: problem } = (await readJson(configFile, configSchema)) ?? {};
  return {
    model,
    folder,
    name: basename(model) === 'model.onnx' ? basename(folder) : basename(model),
    ...(config && { preprocessor: { config, source } }),
    ...(id2label && { labels: labelList(id2label, configFile) }),
    ...(problem && { problem }),
  };
}

async function modelFile(path: string): Promise<string> {
  const kind = await kindOf(path);
  if (kind === 'file') return path;
  if (kind === undefined) throw new ResidualSkipError('MODEL_NOT_FOUND', `model ${path}: it doesn't exist`);
  for (const candidate of [join(path, 'model.onnx'), join(path, 'onnx', 'model.onnx')]) {
    if ((await kindOf(candidate)) === 'file') return candidate;
  }
  const models = (await listFolder(path)).files.filter((name) => extname(name) === '.onnx');
  if (models.length === 1) return join(path, models[0]!);
  const why =
    models.length === 0
      ? 'it holds no .onnx file'
      : `it holds several models (${models.join(', ')}); name one`;
  throw new ResidualSkipError('MODEL_NOT_FOUND', `folder ${path}: ${why}`);
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
