import type { TensorMetadata } from 'residual-skip';
import { datatypeOf } from '../inference/datatypes.js';
import type { ServedModel } from './model.js';
import type { ModelRepository } from './repository.js';
import { settingParameters } from './settings.js';

export const PLATFORM = 'onnx_onnxv1';
export const EXTENSIONS = [
  'binary_tensor_data',
  'classification',
  'model_configuration',
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

/**
 * Triton's description of a model, of which clients need the types, the shapes, and how many items a request may have. Dimensions don't
 * include that of the batch.
 */
export function modelConfig(model: ServedModel, maxItems: number) {
  const batched =
    model.itemwise && [...model.inputs, ...model.outputs].every(({ shape }) => typeof shape[0] === 'string');
  const tensor = ({ name, type, shape }: TensorMetadata) => ({
    name,
    data_type: `TYPE_${datatypeOf(type)}`,
    dims: shape.slice(batched ? 1 : 0).map((length) => (typeof length === 'number' ? length : -1)),
  });
  return {
    name: model.name,
    platform: PLATFORM,
    backend: 'onnxruntime',
    max_batch_size: batched ? maxItems : 0,
    input: model.inputs.map(tensor),
    output: model.outputs.map(tensor),
  };
}

/** Counters of a model, named as in the protocol's statistics extension. */
export function modelStatistics({ name, version, counts }: ServedModel) {
  const { requests, failures, failNs, items, calls, lastMs, inputNs, queueNs, computeNs, batches } = counts;
  const duration = (count: number, ns: number) => ({ count, ns: Math.round(ns) });
  return {
    name,
    version,
    last_inference: lastMs,
    inference_count: items,
    execution_count: Math.round(calls),
    inference_stats: {
      success: duration(requests, inputNs + queueNs + computeNs),
      fail: duration(failures, failNs),
      queue: duration(requests, queueNs),
      compute_input: duration(requests, inputNs),
      compute_infer: duration(requests, computeNs),
      // Formatting an answer takes microseconds, which aren't counted.
      compute_output: duration(requests, 0),
      cache_hit: duration(0, 0),
      cache_miss: duration(0, 0),
    },
    batch_stats: [...batches].map(([batch_size, one]) => ({
      batch_size,
      compute_input: duration(Math.round(one.calls), 0),
      compute_infer: duration(Math.round(one.calls), one.ns),
      compute_output: duration(Math.round(one.calls), 0),
    })),
  };
}
