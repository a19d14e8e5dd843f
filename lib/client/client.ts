import { ResidualSkipError } from '../errors.js';
import { Tensor, type TensorLike, toTensor } from '../tensor/tensor.js';
import { DATATYPES, type Datatype, datatypeOf } from './datatypes.js';

export interface ClientOptions {
  /** Sent as `Authorization: Bearer`. */
  token?: string;
  /** How often a request is retried when the server is busy, after about the delay that it asks for; 0 when left out. */
  retries?: number | undefined;
}

export interface InferOptions {
  /** Outputs to return; all when left out. */
  outputs?: readonly string[];
  /** `full`, or another setting of the served model; when left out, the server chooses by its load. */
  policy?: string;
  /** Also return what each item ran and skipped. */
  trace?: boolean;
  /** 1 is served first, then larger numbers; 0, the default, counts as 10. */
  priority?: number;
  /** Milliseconds after which the server gives up the request. */
  timeout?: number;
  /** Version of the model; the newest when left out. */
  version?: string;
  signal?: AbortSignal | undefined;
}

/** The answer of a server. */
export interface Inference {
  readonly outputs: { readonly [name: string]: Tensor };
  readonly version: string;
  /** The setting that ran. */
  readonly policy: string;
  /** What it promises: at most `limit` of the answers differ from the full network's. */
  readonly promise: { readonly limit: number; readonly confidence: number; readonly metric: string } | null;
  readonly blocksSkipped: number;
  /** 0 to 1. */
  readonly multiplyAddsSkipped: number;
  /** An ItemTrace of the package for each item; null unless it was asked for. */
  readonly trace: readonly unknown[] | null;
}

export interface RemotePrediction {
  readonly index: number;
  readonly label: string;
  /** The model's score: a logit or a probability, depending on the model. */
  readonly score: number;
}

/** The bytes of an image file. */
type ImageFile = Uint8Array | ArrayBuffer;

interface WireInput {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

interface WireOutput {
  readonly name: string;
  readonly datatype: Datatype | 'BYTES';
  readonly shape: readonly number[];
  readonly parameters: { readonly binary_data_size: number };
}

interface WireResponse {
  readonly model_version: string;
  readonly parameters: Readonly<Record<string, string | number | boolean>>;
  readonly outputs: readonly WireOutput[];
}

/**
 * A client of a model server: Open Inference Protocol v2 over REST, tensors in binary. Works wherever `fetch` does.
 *
 * ```ts
 * const client = new Client('http://127.0.0.1:8000');
 * const [[best]] = await client.classify('resnet', [await readFile('cat.jpg')]);
 * ```
 */
export class Client {
  readonly #url: string;
  readonly #options: ClientOptions;

  /** @param url URL of the server, such as `http://127.0.0.1:8000` */
  constructor(url: string, options: ClientOptions = {}) {
    this.#url = url.replace(/\/+$/, '');
    this.#options = options;
  }

  /** Whether the server answers and accepts requests. */
  async ready(): Promise<boolean> {
    return fetch(`${this.#url}/v2/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  }

  /** Models of the server's repository, loaded or not. */
  async models(): Promise<readonly { name: string; version: string; state: string; reason: string }[]> {
    return (await this.#post('/v2/repository/index')).json() as never;
  }

  async load(model: string): Promise<void> {
    await this.#post(`/v2/repository/models/${encodeURIComponent(model)}/load`);
  }

  async unload(model: string): Promise<void> {
    await this.#post(`/v2/repository/models/${encodeURIComponent(model)}/unload`);
  }

  /**
   * Runs a model on tensors; those of onnxruntime-common are accepted too.
   * @throws ResidualSkipError INVALID_ARGUMENT (the request doesn't fit the model), MODEL_NOT_FOUND, BUSY, UNAVAILABLE,
   * ABORTED
   */
  async infer(
    model: string,
    feeds: { readonly [input: string]: Tensor | TensorLike },
    options: InferOptions = {},
  ): Promise<Inference> {
    const inputs = Object.entries(feeds).map(([name, given]): WireInput => {
      const { type, dims, data } = toTensor(`input '${name}'`, given);
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return { name, datatype: datatypeOf(type)!, shape: dims, bytes };
    });
    const { head, tail } = await this.#infer(
      model,
      inputs,
      options.outputs?.map((name) => ({ name })),
      options,
    );
    return { outputs: Object.fromEntries(tensorsOf(head, tail)), ...reportOf(head) };
  }

  /**
   * Classifies image files (JPEG, PNG, WebP), which the server prepares for the model.
   * @param input name of the model's input; `input` when left out
   * @param output name of its scores; `logits` when left out
   * @returns for each image, the `topK` (5 when left out) best classes. Throws the same errors as `infer`.
   */
  async classify(
    model: string,
    images: readonly ImageFile[],
    {
      topK = 5,
      input = 'input',
      output = 'logits',
      ...options
    }: Omit<InferOptions, 'outputs'> & { topK?: number; input?: string; output?: string } = {},
  ): Promise<RemotePrediction[][]> {
    const bytes = joinBytes(
      images.map((image) => (image instanceof Uint8Array ? image : new Uint8Array(image))),
    );
    const inputs = [{ name: input, datatype: 'BYTES', shape: [images.length], bytes }];
    const outputs = [{ name: output, parameters: { classification: topK } }];
    const { tail } = await this.#infer(model, inputs, outputs, options);
    const texts = splitBytes(tail).map((part) => new TextDecoder().decode(part));
    const predictions = texts.map((text): RemotePrediction => {
      const [score, index, ...label] = text.split(':');
      return { index: Number(index), label: label.join(':'), score: Number(score) };
    });
    const each = predictions.length / images.length;
    return images.map((_, i) => predictions.slice(i * each, (i + 1) * each));
  }

  async #infer(
    model: string,
    inputs: readonly WireInput[],
    outputs: readonly object[] | undefined,
    { policy, trace, priority, timeout, version, signal }: InferOptions,
  ): Promise<{ head: WireResponse; tail: Uint8Array }> {
    const head = {
      parameters: {
        binary_data_output: true,
        ...(policy !== undefined && { policy }),
        ...(trace && { trace }),
        ...(priority !== undefined && { priority }),
        ...(timeout !== undefined && { timeout: Math.round(1000 * timeout) }),
      },
      inputs: inputs.map(({ bytes, ...input }) => ({
        ...input,
        parameters: { binary_data_size: bytes.byteLength },
      })),
      ...(outputs && { outputs }),
    };
    const json = new TextEncoder().encode(JSON.stringify(head));
    const body = new Blob([json, ...inputs.map(({ bytes }) => bytes as Uint8Array<ArrayBuffer>)]);
    const path = `/v2/models/${encodeURIComponent(model)}${version ? `/versions/${version}` : ''}/infer`;
    const headers = {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': `${json.length}`,
    };
    const response = await this.#post(path, { headers, body, ...(signal && { signal }) });
    const bytes = new Uint8Array(await response.arrayBuffer());
    const length = Number(response.headers.get('inference-header-content-length') ?? bytes.length);
    return {
      head: JSON.parse(new TextDecoder().decode(bytes.subarray(0, length))),
      tail: bytes.subarray(length),
    };
  }

  async #post(path: string, init: RequestInit = {}, attempt = 0): Promise<Response> {
    const { token, retries = 0 } = this.#options;
    const headers = { ...(init.headers as object), ...(token && { authorization: `Bearer ${token}` }) };
    const response = await fetch(`${this.#url}${path}`, { ...init, method: 'POST', headers }).catch(
      (cause: Error) => {
        if (init.signal?.aborted)
          throw new ResidualSkipError('ABORTED', 'request: it was aborted', { cause });
        const why = cause.cause instanceof Error ? cause.cause.message : cause.message;
        throw new ResidualSkipError('UNAVAILABLE', `server ${this.#url}: it can't be reached (${why})`, {
          cause,
        });
      },
    );
    if (response.ok) return response;
    if ([429, 503].includes(response.status) && attempt < retries) {
      await response.body?.cancel();
      const seconds = Number(response.headers.get('retry-after') ?? 1);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (0.5 + Math.random())));
      return this.#post(path, init, attempt + 1);
    }
    throw await errorOf(response);
  }
}

const CODES = { 404: 'MODEL_NOT_FOUND', 429: 'BUSY', 503: 'UNAVAILABLE', 504: 'ABORTED' } as const;

async function errorOf(response: Response): Promise<ResidualSkipError> {
  const { status } = response;
  const text = await response.text();
  const code = CODES[status as keyof typeof CODES] ?? (status < 500 ? 'INVALID_ARGUMENT' : 'UNAVAILABLE');
  return new ResidualSkipError(code, `server: it answered ${status} (${messageIn(text)})`);
}

function messageIn(text: string): string {
  try {
    return String((JSON.parse(text) as { error?: unknown }).error ?? text);
  } catch {
    return text;
  }
}

function* tensorsOf({ outputs }: WireResponse, tail: Uint8Array): Generator<[string, Tensor]> {
  let at = 0;
  for (const { name, datatype, shape, parameters } of outputs) {
    if (datatype === 'BYTES')
      throw new ResidualSkipError('INVALID_DTYPE', `output '${name}': it is not a tensor`);
    const end = at + parameters.binary_data_size;
    // Copied, because the tail begins wherever the JSON ends, which may be unaligned.
    const { buffer } = tail.slice(at, end);
    const { type, array: Elements } = DATATYPES[datatype];
    const array = new Elements(buffer as ArrayBuffer, 0, (end - at) / Elements.BYTES_PER_ELEMENT);
    yield [name, new Tensor(type, array as Float32Array, shape)];
    at = end;
  }
}

function reportOf({ model_version, parameters }: WireResponse): Omit<Inference, 'outputs'> {
  const { policy, promise_limit: limit, promise_confidence: confidence, promise_metric: metric } = parameters;
  return {
    version: model_version,
    policy: String(policy),
    promise:
      limit === undefined
        ? null
        : { limit: Number(limit), confidence: Number(confidence), metric: String(metric) },
    blocksSkipped: Number(parameters.blocks_skipped),
    multiplyAddsSkipped: Number(parameters.multiply_adds_skipped),
    trace: parameters.trace === undefined ? null : JSON.parse(String(parameters.trace)),
  };
}

/** Joins elements, each preceded by its length in 4 bytes, little-endian. */
function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, { length }) => sum + 4 + length, 0));
  const view = new DataView(joined.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length, true);
    joined.set(part, at + 4);
    at += 4 + part.length;
  }
  return joined;
}

function splitBytes(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Uint8Array[] = [];
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = view.getUint32(at, true);
    parts.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return parts;
}
