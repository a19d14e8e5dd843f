import type { TensorMetadata } from 'residual-skip';
import { datatypeOf } from './datatypes.js';
import type { ServedModel } from './model.js';
import type { ModelRepository } from './repository.js';
import { settingParameters } from './settings.js';

export const PLATFORM = 'onnx_onnxv1';
export const EXTENSIONS = [
  'binary_tensor_data',
  'classification',
  'model_repository',
  'schedule_policy',
  'statistics',
] as const;

/** The protocol's metadata of a model, and the setting in which it runs now. Dimensions that the model leaves open are -1. */
export function modelMetadata(model: ServedModel, repository: ModelRepository) {
  return {
    name: model.name,
    versions: repository.versionsOf(model.name).map(({ version }) => version),
    platform: PLATFORM,
    parameters: settingParameters(model.setting, model.isWatched(model.setting)),
    inputs: model.inputs.map(tensorMetadata),
    outputs: model.outputs.map(tensorMetadata),
  };
}

function tensorMetadata({ name, type, shape }: TensorMetadata) {
  return {
    name,
    datatype: datatypeOf(type),
    shape: shape.map((length) => (typeof length === 'number' ? length : -1)),
  };
}

/** Counters of a model, named as in the protocol's statistics extension. */
export function modelStatistics({ name, version, counts }: ServedModel) {
  const { requests, failures, items, calls, lastMs, queueNs, computeNs } = counts;
  const duration = (count: number, ns: number) => ({ count, ns: Math.round(ns) });
  return {
    name,
    version,
    last_inference: lastMs,
    inference_count: items,
    execution_count: Math.round(calls),
    inference_stats: {
      success: duration(requests, queueNs + computeNs),
      fail: duration(failures, 0),
      queue: duration(requests, queueNs),
      compute_infer: duration(requests, computeNs),
    },
  };
}
