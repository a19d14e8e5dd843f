import type { ModelProto } from './proto.js';
import { toBigInt } from './tensor-proto.js';

/** What the writer of an ONNX file says about it, as in onnxruntime's ModelMetadata; empty where it says nothing. */
export interface ModelMetadata {
  /** The program that wrote the file, such as pytorch. */
  readonly producer: string;
  readonly producerVersion: string;
  readonly domain: string;
  /** The writer's number of this model; 0 if it has none. */
  readonly version: number;
  readonly description: string;
  readonly graphName: string;
  readonly graphDescription: string;
  /** Pairs of any names and values: `metadata_props` in the file. */
  readonly custom: Readonly<Record<string, string>>;
}

export function metadataOf(proto: ModelProto): ModelMetadata {
  const { producerName, producerVersion, domain, modelVersion, docString, graph, metadataProps = [] } = proto;
  return {
    producer: producerName ?? '',
    producerVersion: producerVersion ?? '',
    domain: domain ?? '',
    version: Number(toBigInt(modelVersion ?? 0)),
    description: docString ?? '',
    graphName: graph?.name ?? '',
    graphDescription: graph?.docString ?? '',
    custom: Object.fromEntries(metadataProps.map(({ key = '', value = '' }) => [key, value])),
  };
}
