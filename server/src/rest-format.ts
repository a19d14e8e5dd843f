import { TextDecoder } from 'node:util';
import { Tensor } from 'residual-skip';
import { z } from 'zod';
import {
  bytesOf,
  checkFiles,
  joinBytes,
  jsonOf,
  MAX_AXES,
  splitBytes,
  tensorFromBytes,
  tensorFromJson,
} from './datatypes.js';
import { ServerError } from './errors.js';
import type { InferRequest, InferResponse, Parameters, RequestInput, ResponseOutput } from './messages.js';

/** Maximum number of inputs and of outputs of a request. */
const MAX_PORTS = 1024;

/** An array whose length is checked before its elements: zod describes every wrong element, which takes long for many. */
const atMost = <T>(most: number, element: z.ZodType<T>) =>
  z.array(z.unknown()).max(most).pipe(z.array(element));

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
  // JSON can't hold bytes: files are base64, as for other servers of the protocol.
  const texts = data.flat(shape.length);
  checkFiles(name, shape, texts.length);
  if (!texts.every((text) => typeof text === 'string')) {
    throw new ServerError('INVALID_ARGUMENT', `input '${name}': its BYTES are not strings; send base64`);
  }
  return { name, shape, content: texts.map((text) => Buffer.from(text as string, 'base64')) };
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
