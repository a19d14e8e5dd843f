import { TextDecoder } from 'node:util';
import { Tensor } from 'residual-skip';
import { DATATYPES } from 'residual-skip/client';
import { z } from 'zod';
import {
  bytesOf,
  checkFiles,
  datatypeOf,
  joinBytes,
  jsonOf,
  MAX_AXES,
  splitBytes,
  tensorFromBytes,
  tensorFromJson,
} from './datatypes.js';
import { ServerError } from './errors.js';
import type { InferRequest, InferResponse, Parameters, RequestInput, ResponseOutput } from './messages.js';
import type { ServedModel } from './model.js';
import { checkParameters } from './parameters.js';

/** Maximum number of inputs and of outputs of a request. */
const MAX_PORTS = 1024;

/** An array whose length is checked before its elements: zod describes every wrong element, which takes long for many. */
const atMost = <T>(max: number, element: z.ZodType<T>) =>
  z.array(z.unknown()).max(max).pipe(z.array(element));

/** Schemas of requests in the Open Inference Protocol's JSON, with its binary tensor data extension. */
const parameters = z
  .custom<Parameters>(isParameters, 'expected text, numbers or booleans by name')
  .default({});
const requestSchema = z.object({
  id: z.string().default(''),
  parameters,
  inputs: atMost(
    MAX_PORTS,
    z.object({
      name: z.string(),
      datatype: z.string(),
      shape: atMost(MAX_AXES, z.int().min(0)),
      parameters,
      data: z.array(z.unknown()).optional(),
    }),
  ).refine(({ length }) => length > 0, 'expected at least one'),
  outputs: atMost(MAX_PORTS, z.object({ name: z.string(), parameters })).default([]),
});
type JsonRequest = z.infer<typeof requestSchema>;

/** Quicker than a schema, and ends at the first wrong value. */
function isParameters(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((one) => ['string', 'number', 'boolean'].includes(typeof one));
}

/** A parsed request, and the outputs that it wants in binary. */
export interface ParsedRequest {
  readonly request: Omit<InferRequest, 'model' | 'version'>;
  readonly binary: (output: string) => boolean;
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
  const json = parseJson(body.subarray(0, headerLength ?? body.length), requestSchema);
  checkParameters('parameters', json.parameters);
  for (const input of json.inputs) checkParameters('input', input.parameters, input.name);
  for (const output of json.outputs) checkParameters('output', output.parameters, output.name);
  const binary = { bytes: body.subarray(headerLength ?? body.length), at: 0 };
  const inputs = json.inputs.map((input) => parseInput(input, binary));
  if (binary.at !== binary.bytes.length) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `body: ${binary.bytes.length} bytes follow the JSON, but its inputs name ${binary.at}; give each binary input its binary_data_size`,
    );
  }
  const all = json.parameters.binary_data_output === true;
  const own = new Map(json.outputs.map(({ name, parameters: { binary_data } }) => [name, binary_data]));
  return {
    request: { id: json.id, parameters: json.parameters, inputs, outputs: json.outputs },
    binary: (output) => (own.get(output) ?? all) === true,
  };
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

/** zod begins its messages in upper case. */
function lowerCased(message: string): string {
  return message.charAt(0).toLowerCase() + message.slice(1);
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** @throws ServerError INVALID_ARGUMENT */
export function parseJson<T>(bytes: Uint8Array, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `body: it is not JSON (${(cause as Error).message}); send JSON, or name its length in Inference-Header-Content-Length if tensors follow it`,
      { cause },
    );
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `${issue!.path.join('.') || 'body'}: ${lowerCased(issue!.message)}`,
  );
}

function parseInput(
  input: JsonRequest['inputs'][number],
  binary: { bytes: Uint8Array; at: number },
): RequestInput {
  const { name, datatype, shape, data, parameters } = input;
  const size = parameters.binary_data_size;
  if (size !== undefined) {
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
  if (!data)
    throw new ServerError(
      'INVALID_ARGUMENT',
      `input '${name}': it has neither data nor binary_data_size; give one`,
    );
  if (datatype !== 'BYTES') return { name, shape, content: tensorFromJson(name, datatype, shape, data) };
  const texts = data.flat(shape.length);
  checkFiles(name, shape, texts.length);
  if (!texts.every((text) => typeof text === 'string')) {
    throw new ServerError('INVALID_ARGUMENT', `input '${name}': its BYTES are not strings; send base64`);
  }
  return { name, shape, content: texts as string[] };
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
