import { Tensor, toFloat32 } from 'residual-skip';
import { DATATYPES } from 'residual-skip/client';
import { ServerError } from '../errors.js';
import {
  bytesOf,
  checkFiles,
  datatypeOf,
  elementsOfJson,
  joinBytes,
  jsonOf,
  MAX_AXES,
  splitBytes,
  tensorFromBytes,
  tensorFromJson,
} from '../inference/datatypes.js';
import type {
  InferRequest,
  InferResponse,
  Parameters,
  RequestedOutput,
  RequestInput,
  ResponseOutput,
} from '../inference/messages.js';
import type { ServedModel } from '../models/model.js';
import { parseJson } from './json.js';
import { checkParameters } from './parameters.js';

/** Maximum number of inputs and of outputs of a request. */
const MAX_PORTS = 1024;

/** The fields of an object or, with a list, of its elements; not yet checked. */
type Fields = Readonly<Record<string, unknown>>;

/** A schema's description of each wrong field takes long for many, and every request would pay for it: these end at the first. */
function invalid(where: string, expected: string): ServerError {
  return new ServerError('INVALID_ARGUMENT', `${where}: expected ${expected}`);
}

function fieldsOf(value: unknown, where: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw invalid(where, 'an object');
}

function listOf(value: unknown, where: string, most: number): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(where, 'a list');
  if (value.length > most) throw invalid(where, `at most ${most}, received ${value.length}`);
  return value;
}

function textOf(value: unknown, where: string): string {
  if (typeof value === 'string') return value;
  throw invalid(where, 'text');
}

function parametersOf(value: unknown, where: string): Parameters {
  if (value === undefined) return {};
  const parameters = fieldsOf(value, where);
  for (const name in parameters) {
    const value = parameters[name];
    if (typeof value !== 'string' && !Number.isFinite(value) && typeof value !== 'boolean')
      throw invalid(`${where}.${name}`, 'text, a finite number, true or false');
  }
  return parameters as Parameters;
}

function shapeOf(value: unknown, where: string): readonly number[] {
  const shape = listOf(value, where, MAX_AXES) as readonly number[];
  for (const length of shape)
    if (!Number.isSafeInteger(length) || length < 0) throw invalid(where, 'whole numbers of at least 0');
  return shape;
}

/** A parsed request, and the outputs that it wants in binary. */
export interface ParsedRequest {
  readonly request: Omit<InferRequest, 'model' | 'version'>;
  readonly binary: (output: string) => boolean;
}

/** The items that the JSON in front of a long body announces, by the first axis of its first input. Errors as parseInferBody. */
export function itemsIn(json: Uint8Array): number {
  const { inputs } = fieldsOf(parseJson(json), 'body');
  const [first] = listOf(inputs, 'inputs', MAX_PORTS);
  const [items = 1] = shapeOf(fieldsOf(first, 'inputs.0').shape, 'inputs.0.shape');
  return items;
}

/**
 * @param headerLength length of the JSON at the start of the body (Inference-Header-Content-Length), which binary tensors
 * follow. Undefined if the whole body is JSON.
 * @throws ServerError INVALID_ARGUMENT
 */
export function parseInferBody(body: Uint8Array, headerLength: number | undefined): ParsedRequest {
  if (
    headerLength !== undefined &&
    (!Number.isSafeInteger(headerLength) || headerLength < 0 || headerLength > body.length)
  ) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `header Inference-Header-Content-Length: it is ${headerLength}, but the body has ${body.length} bytes; send the length of the JSON`,
    );
  }
  const { id, parameters, inputs, outputs } = fieldsOf(
    parseJson(body.subarray(0, headerLength ?? body.length)),
    'body',
  );
  const asked = parametersOf(parameters, 'parameters');
  checkParameters('parameters', asked);
  const given = listOf(inputs, 'inputs', MAX_PORTS);
  if (given.length === 0) throw invalid('inputs', 'at least one');
  const binary = { bytes: body.subarray(headerLength ?? body.length), at: 0 };
  const request = {
    id: id === undefined ? '' : textOf(id, 'id'),
    parameters: asked,
    outputs: (outputs === undefined ? [] : listOf(outputs, 'outputs', MAX_PORTS)).map(outputFrom),
    inputs: given.map((input, i) => inputFrom(fieldsOf(input, `inputs.${i}`), `inputs.${i}`, binary)),
  };
  if (binary.at !== binary.bytes.length) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `body: ${binary.bytes.length} bytes follow the JSON, but its inputs name ${binary.at}; give each binary input its binary_data_size`,
    );
  }
  const all = asked.binary_data_output === true;
  const own = new Map(request.outputs.map(({ name, parameters: { binary_data } }) => [name, binary_data]));
  return { request, binary: (output) => (own.get(output) ?? all) === true };
}

function outputFrom(output: unknown, i: number): RequestedOutput {
  const where = `outputs.${i}`;
  const { name: given, parameters: asked } = fieldsOf(output, where);
  const name = textOf(given, `${where}.name`);
  const parameters = parametersOf(asked, `${where}.parameters`);
  checkParameters('output', parameters, name);
  return { name, parameters };
}

/**
 * A request without JSON (Inference-Header-Content-Length: 0): its body is the model's one input, an item of a tensor, an image file
 * or a text. All outputs are wanted in binary.
 * @throws ServerError INVALID_ARGUMENT
 */
export function rawRequest(body: Uint8Array, model: ServedModel): ParsedRequest {
  const input = rawInput(body, model);
  return { request: { id: '', parameters: {}, inputs: [input], outputs: [] }, binary: () => true };
}

function rawInput(body: Uint8Array, model: ServedModel): RequestInput {
  const [input, ...others] = model.inputs;
  if (model.text || (input && others.length === 0)) {
    const { name, type, shape } = input!;
    const datatype = datatypeOf(type);
    const elements = body.length / (datatype === 'BYTES' ? 1 : DATATYPES[datatype].array.BYTES_PER_ELEMENT);
    const dims = model.text ? undefined : shapeFor(elements, shape);
    if (dims) return { name, shape: dims, content: tensorFromBytes(name, datatype, dims, body) };
    if (model.images || model.text) return { name, shape: [1], content: [body] };
  }
  throw new ServerError(
    'INVALID_ARGUMENT',
    `body: its ${body.length} bytes aren't an item of the one input of model ${model.name}; send JSON, and its length in Inference-Header-Content-Length`,
  );
}

/** The shape of one item that has so many elements; undefined if there is none, or more than one. */
function shapeFor(elements: number, shape: readonly (number | string)[]): number[] | undefined {
  const dims = shape.map((length, axis) => (axis === 0 && typeof length === 'string' ? 1 : length));
  const known = dims.reduce<number>((all, length) => (typeof length === 'number' ? all * length : all), 1);
  const open = dims.filter((length) => typeof length === 'string');
  const rest = elements / known;
  if (open.length > 1 || !Number.isInteger(rest) || (open.length === 0 && rest !== 1)) return undefined;
  return dims.map((length) => (typeof length === 'number' ? length : rest));
}

function inputFrom(
  { name: givenName, datatype: givenType, shape: givenShape, data, parameters: asked }: Fields,
  where: string,
  binary: { readonly bytes: Uint8Array; at: number },
): RequestInput {
  const name = textOf(givenName, `${where}.name`);
  const datatype = textOf(givenType, `${where}.datatype`);
  const shape = shapeOf(givenShape, `${where}.shape`);
  const parameters = parametersOf(asked, `${where}.parameters`);
  checkParameters('input', parameters, name);
  const size = parameters.binary_data_size;
  if (size !== undefined) {
    if (data !== undefined)
      throw new ServerError(
        'INVALID_ARGUMENT',
        `input '${name}': it has data and binary_data_size; give one of them`,
      );
    const end = binary.at + Number(size);
    if (!Number.isSafeInteger(size) || (size as number) < 0 || end > binary.bytes.length) {
      throw new ServerError(
        'INVALID_ARGUMENT',
        `input '${name}': its binary_data_size of ${size} goes beyond the body; give the number of its bytes`,
      );
    }
    const bytes = binary.bytes.subarray(binary.at, end);
    binary.at = end;
    const content =
      datatype === 'BYTES' ? splitBytes(name, shape, bytes) : tensorFromBytes(name, datatype, shape, bytes);
    return { name, shape, content };
  }
  if (data === undefined)
    throw new ServerError(
      'INVALID_ARGUMENT',
      `input '${name}': it has neither data nor binary_data_size; give one`,
    );
  if (!Array.isArray(data)) throw invalid(`${where}.data`, 'a list');
  if (datatype !== 'BYTES') {
    const content = tensorFromJson(name, datatype, shape, data);
    checkRange(name, datatype, content);
    return { name, shape, content };
  }
  const texts = elementsOfJson(name, shape, data);
  checkFiles(name, shape, texts.length);
  const other = texts.findIndex((text) => typeof text !== 'string');
  if (other >= 0) {
    const found = Array.isArray(texts[other]) ? 'a list' : 'no text';
    throw new ServerError(
      'INVALID_ARGUMENT',
      `input '${name}': element ${other} of its data is ${found}; send texts, and images in base64`,
    );
  }
  return { name, shape, content: texts as string[] };
}

/** JSON has no infinity: one comes from a number that is too large, such as 1e999. */
function checkRange(name: string, datatype: string, tensor: Tensor): void {
  if (tensor.type !== 'float32' && tensor.type !== 'float16' && tensor.type !== 'float64') return;
  const { data } = tensor.type === 'float16' ? toFloat32(tensor) : tensor;
  const at = data.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `input '${name}': data[${at}]: its number is beyond the range of ${datatype}; send a finite one, or the tensor in binary`,
  );
}

/** The body of an answer: JSON, or JSON followed by binary tensors. */
export interface Formatted {
  readonly body: Buffer;
  /** Length of the JSON; undefined if nothing follows it. */
  readonly headerLength: number | undefined;
}

export function formatInferResponse(response: InferResponse, binary: (output: string) => boolean): Formatted {
  const tails: Uint8Array[] = [];
  const outputs = response.outputs.map((output) => {
    const { name, datatype, shape, content } = output;
    if (!binary(name)) return { name, datatype, shape, data: jsonContent(output) };
    const bytes = content instanceof Tensor ? bytesOf(content) : joinBytes(content);
    tails.push(bytes);
    return { name, datatype, shape, parameters: { binary_data_size: bytes.byteLength } };
  });
  const { model, version, id, parameters: answered } = response;
  const head = Buffer.from(
    JSON.stringify({
      model_name: model,
      model_version: version,
      ...(id && { id }),
      parameters: answered,
      outputs,
    }),
  );
  if (tails.length === 0) return { body: head, headerLength: undefined };
  return { body: Buffer.concat([head, ...tails]), headerLength: head.length };
}

function jsonContent({ name, content }: ResponseOutput): readonly unknown[] {
  if (!(content instanceof Tensor)) return content.map((bytes) => Buffer.from(bytes).toString());
  const values = jsonOf(content);
  if (values.every((value) => typeof value === 'boolean' || Number.isFinite(value))) return values;
  throw new ServerError(
    'UNSUPPORTED',
    `output '${name}': it has values that JSON can't hold (NaN or infinity); request it in binary`,
  );
}
