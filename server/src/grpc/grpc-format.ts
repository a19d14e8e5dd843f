import { Tensor } from 'residual-skip';
import { ServerError } from '../errors.js';
import { checkParameters } from '../http/parameters.js';
import {
  bytesOf,
  checkFiles,
  joinBytes,
  splitBytes,
  tensorFromBytes,
  tensorFromJson,
} from '../inference/datatypes.js';
import type { InferRequest, InferResponse, Parameters, RequestInput } from '../inference/messages.js';

/** A value of the protocol's `parameters`; the loader adds the name of the field that is set. */
interface InferParameter {
  readonly parameter_choice?: string;
  readonly [choice: string]: unknown;
}
type ParameterMap = Readonly<Record<string, InferParameter>>;

interface InferInputTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly parameters: ParameterMap;
  readonly contents: Readonly<Record<string, readonly unknown[]>> | null;
}

/** ModelInferRequest as the loader decodes it. */
export interface ModelInferRequest {
  readonly model_name: string;
  readonly model_version: string;
  readonly id: string;
  readonly parameters: ParameterMap;
  readonly inputs: readonly InferInputTensor[];
  readonly outputs: readonly { readonly name: string; readonly parameters: ParameterMap }[];
  readonly raw_input_contents: readonly Uint8Array[];
}

/** The bytes of a tensor, aligned for its elements. */
type Align = (bytes: Uint8Array) => Uint8Array;

/** @throws ServerError INVALID_ARGUMENT, TOO_LARGE */
export function parse(request: ModelInferRequest, aligned: Align): InferRequest {
  const { raw_input_contents: raw, inputs } = request;
  if (raw.length > 0 && raw.length !== inputs.length) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `raw_input_contents: there are ${raw.length} for ${inputs.length} inputs; send one for each, or none`,
    );
  }
  if (inputs.length === 0)
    throw new ServerError('INVALID_ARGUMENT', 'inputs: there are none; send every input of the model');
  const parameters = parametersOf(request.parameters);
  checkParameters('parameters', parameters);
  for (const input of inputs) checkParameters('input', parametersOf(input.parameters), input.name);
  for (const output of request.outputs)
    checkParameters('output', parametersOf(output.parameters), output.name);
  return {
    model: request.model_name,
    version: request.model_version,
    id: request.id,
    parameters,
    inputs: inputs.map((input, i) => parseInput(input, raw[i], aligned)),
    outputs: request.outputs.map(({ name, parameters }) => ({ name, parameters: parametersOf(parameters) })),
  };
}

/** Fields of InferTensorContents, by datatype. The protocol has none for FP16, which is sent raw. */
const CONTENTS: Readonly<Record<string, string>> = {
  FP32: 'fp32_contents',
  FP64: 'fp64_contents',
  INT8: 'int_contents',
  INT16: 'int_contents',
  INT32: 'int_contents',
  INT64: 'int64_contents',
  UINT8: 'uint_contents',
  UINT16: 'uint_contents',
  UINT32: 'uint_contents',
  UINT64: 'uint64_contents',
  BOOL: 'bool_contents',
  BYTES: 'bytes_contents',
};

function parseInput(
  { name, datatype, shape, contents }: InferInputTensor,
  raw: Uint8Array | undefined,
  aligned: Align,
): RequestInput {
  const field = CONTENTS[datatype];
  checkContents(name, datatype, contents, field, raw !== undefined);
  if (raw) {
    const content =
      datatype === 'BYTES'
        ? splitBytes(name, shape, raw)
        : tensorFromBytes(name, datatype, shape, aligned(raw));
    return { name, shape, content };
  }
  // Infinity and NaN are numbers of a float's field, which only a client that means them sends; in JSON, infinity is a number too large.
  const data = contents?.[field ?? ''] ?? [];
  if (datatype !== 'BYTES') return { name, shape, content: tensorFromJson(name, datatype, shape, data) };
  checkFiles(name, shape, data.length);
  return { name, shape, content: data as Uint8Array[] };
}

/** Throws INVALID_ARGUMENT for contents that nobody would read. */
function checkContents(
  name: string,
  datatype: string,
  contents: InferInputTensor['contents'],
  field: string | undefined,
  isRaw: boolean,
): void {
  for (const other in contents) {
    if (contents[other]!.length === 0 || (other === field && !isRaw)) continue;
    const way = isRaw
      ? 'beside its raw contents; send one of them'
      : `but ${datatype} takes ${field ?? 'raw contents'}; send those`;
    throw new ServerError('INVALID_ARGUMENT', `input '${name}': it has ${other}, ${way}`);
  }
}

function parametersOf(parameters: ParameterMap): Parameters {
  return Object.fromEntries(
    Object.entries(parameters ?? {}).map(([name, value]) => [
      name,
      value[value.parameter_choice ?? ''] as string | number | boolean,
    ]),
  );
}

export function format(response: InferResponse): object {
  const { model, version, id, parameters, outputs } = response;
  return {
    model_name: model,
    model_version: version,
    id,
    parameters: formatParameters(parameters),
    outputs: outputs.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
    raw_output_contents: outputs.map(({ content }) =>
      content instanceof Tensor ? bytesOf(content) : joinBytes(content),
    ),
  };
}

export function formatParameters(parameters: Parameters): object {
  return Object.fromEntries(Object.entries(parameters).map(([name, value]) => [name, parameterOf(value)]));
}

function parameterOf(value: string | number | boolean): object {
  if (typeof value === 'string') return { string_param: value };
  if (typeof value === 'boolean') return { bool_param: value };
  return Number.isSafeInteger(value) ? { int64_param: value } : { double_param: value };
}
