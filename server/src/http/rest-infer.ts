/**
 * Inference over REST. A framework's routing, hooks and replies take longer than a small network's share of a request, so these
 * requests go past it.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { Tensor } from 'residual-skip';
import type { Access } from '../auth.js';
import { Caller } from '../caller.js';
import { ServerError } from '../errors.js';
import { BUSY, type Inference } from '../inference/infer.js';
import { QUEUE_FULL } from '../inference/queue.js';
import type { ModelRepository } from '../models/repository.js';
import type { ReportFailure } from '../observe/failures.js';
import { awaitingContinue, type Bodies } from './bodies.js';
import { packed, wantedEncoding } from './encoding.js';
import { type Formatted, formatInferResponse, itemsIn, parseInferBody, rawRequest } from './rest-format.js';

/**
 * Node.js writes head and body at once if both are text: shorter bodies become it, byte for byte. The operating system has room for them, whether
 * or not the client reads.
 */
const SHORT_BODY = 4096;

/** Node.js reads so much of a body that nobody asks for. */
const SHORT_WAITING = 64 << 10;

const HEADER_LENGTH = 'inference-header-content-length';
const PATH = /^\/v2\/models\/([^/?]+)(?:\/versions\/([^/?]+))?\/infer(?:\?|$)/;

/** An inference request whose client may send it. */
export interface InferCall {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly access: Access;
  /** What its path names; see `namedIn`. */
  readonly named: Named;
  /** Of the request. */
  readonly id: string;
}

/** A model and its version, if one is named, as they are encoded in a path. */
type Named = RegExpExecArray;

/** Null for all requests but those for inference. */
export function namedIn({ method, url }: IncomingMessage): Named | null {
  return method === 'POST' ? PATH.exec(url!) : null;
}

/** The model and its version, if one is named. */
function targetOf([, model = '', version = '']: Named, { url }: IncomingMessage) {
  if (!url!.includes('%')) return { model, version };
  try {
    return { model: decodeURIComponent(model), version: decodeURIComponent(version) };
  } catch {
    throw new ServerError('INVALID_ARGUMENT', `path ${url}: its % signs aren't those of encoded bytes`);
  }
}

interface InferContext {
  readonly bodies: Bodies;
  readonly inference: Inference;
  readonly repository: ModelRepository;
  readonly reportFailure: ReportFailure;
}

/** Answers inference requests; throws ServerError for most of those that fail. */
export function restInference(context: InferContext): (call: InferCall) => Promise<void> {
  const { bodies, inference, repository, reportFailure } = context;
  return async ({ request, response, access, named, id }) => {
    const { model, version } = targetOf(named, request);
    // Before the body is read.
    const retryAfter = inference.lobby.retryAfter(access.client);
    let started: number | undefined;
    if (retryAfter !== undefined) {
      started = performance.now();
      const left = (leave: () => void) => void response.once('close', leave);
      const mayWait =
        Number(request.headers['content-length']) <= SHORT_WAITING && !awaitingContinue.has(request);
      const isIn = mayWait && (await inference.lobby.wait(request.socket, access.client, left));
      if (response.destroyed) return undefined;
      if (!isIn) {
        inference.refused(model, version);
        reportFailure({ protocol: 'rest', error: BUSY, request: `POST ${request.url}`, id });
        return refuse(response, id, retryAfter);
      }
    }
    const { headers } = request;
    const length = jsonLength(headers);
    const checkHead = (json: Uint8Array) => {
      const bytes = Number(headers['content-length']) - json.length;
      inference.checkAnnounced(access.client, repository.find(model, version), bytes, itemsIn(json));
    };
    const received = await bodies.receive(request, {
      client: access.client,
      json: length,
      ...(length && { checkHead }),
    });
    if (received.length === 0)
      throw new ServerError('INVALID_ARGUMENT', 'body: it is missing; send JSON with inputs');
    const caller = new Caller(access, id, started !== undefined);
    response.on('close', () => {
      if (!response.writableFinished) caller.disconnect();
    });
    const turn = bodies.turn(access.client, length ?? received.length);
    if (turn) await turn;
    if (caller.reason) throw caller.reason;
    const { request: parsed, binary } =
      length === 0 ? rawRequest(received, repository.get(model, version)) : parseInferBody(received, length);
    const { traceparent } = headers as { traceparent?: string };
    const { id: own, parameters, inputs, outputs } = parsed;
    const asked = { model, version, id: own, parameters, inputs, outputs, traceparent, started };
    const answer = await inference.infer(asked, caller);
    // Files may still be read by decoders after one of them has failed.
    if (inputs.every(({ content }) => content instanceof Tensor)) bodies.memory.giveBack(received);
    const formatted = formatInferResponse(answer, binary);
    const encoding = wantedEncoding(headers['accept-encoding'] as string | undefined);
    let { body } = formatted;
    if (encoding !== undefined) {
      body = await packed(body, encoding);
      response.setHeader('content-encoding', encoding);
    }
    if (body.length > SHORT_BODY)
      response.once(
        'close',
        bodies.answer(access.client, body.length, () => response.destroy()),
      );
    send(response, id, { ...formatted, body });
  };
}

const REFUSAL = JSON.stringify({ error: QUEUE_FULL, code: 'BUSY' });

/** Node.js skips the body, which wasn't read. A server that is overloaded sends far more of these than answers. */
function refuse(response: ServerResponse, id: string, retryAfter: number): void {
  const type = ['content-type', 'application/json; charset=utf-8', 'content-length', String(REFUSAL.length)];
  response.writeHead(429, [...type, 'retry-after', String(retryAfter), 'x-request-id', id]);
  response.end(REFUSAL);
}

function send(response: ServerResponse, id: string, { body, headerLength }: Formatted): void {
  const own = ['x-request-id', id, 'content-length', String(body.length)];
  const type =
    headerLength === undefined
      ? ['content-type', 'application/json; charset=utf-8']
      : ['content-type', 'application/octet-stream', 'Inference-Header-Content-Length', String(headerLength)];
  response.writeHead(200, [...own, ...type]);
  if (body.length <= SHORT_BODY) response.end(body.toString('latin1'), 'latin1');
  else response.end(body);
}

/** Length of the JSON at the start of a body; undefined if all of it is JSON. */
function jsonLength(headers: IncomingHttpHeaders): number | undefined {
  const header = headers[HEADER_LENGTH];
  return header === undefined ? undefined : Number(header);
}
