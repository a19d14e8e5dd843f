import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Tensor } from 'residual-skip';
import { z } from 'zod';
import { checkRight } from './auth.js';
import type { Bodies } from './bodies.js';
import { Caller } from './caller.js';
import { packed, unpacked, wantedEncoding } from './encoding.js';
import { ServerError } from './errors.js';
import type { ReportFailure } from './failures.js';
import { BUSY, type Inference } from './infer.js';
import type { Parameters } from './messages.js';
import { EXTENSIONS, modelConfig, modelMetadata, modelStatistics } from './metadata.js';
import { checkOrigin } from './origin.js';
import { checkParameters } from './parameters.js';
import { QUEUE_FULL } from './queue.js';
import type { ModelRepository } from './repository.js';
import { formatInferResponse, parseInferBody, parseJson, rawRequest } from './rest-format.js';

const HEADER_LENGTH = 'inference-header-content-length';

interface ModelParams {
  readonly model: string;
  readonly version?: string;
}
type ModelRequest = FastifyRequest<{ Params: ModelParams }>;

export interface RestContext {
  readonly bodies: Bodies;
  readonly repository: ModelRepository;
  readonly inference: Inference;
  readonly version: string;
  /** False while the server drains, and while no model is ready. */
  readonly ready: () => boolean;
  readonly reportFailure: ReportFailure;
}

/** Of a route of the control plane. */
export const CONTROL = { config: { control: true } } as const;

/** Adds the REST routes of the Open Inference Protocol v2 and of EXTENSIONS. */
export function addRestRoutes(app: FastifyInstance, context: RestContext): void {
  const { repository, inference, bodies, version, ready, reportFailure } = context;
  // Fastify's own would read other types, such as plain text, without these limits.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', ({ headers, access }, message, done) =>
    bodies.read(message, access?.client ?? '', jsonLength(headers), (error, body) => {
      const encoding = headers['content-encoding'] ?? 'identity';
      if (error || encoding === 'identity') return done(error, body);
      unpackedBody(body!, encoding, bodies.limitOf(jsonLength(headers))).then(
        (whole) => done(null, whole),
        done,
      );
    }),
  );
  const control = ({ access, raw }: FastifyRequest) => {
    checkOrigin(raw);
    checkRight(access, 'control', 'model control');
  };

  app.get('/v2', () => ({ name: 'residual-skip', version, extensions: EXTENSIONS }));
  app.get('/v2/health/live', () => ({ live: true }));
  app.get('/v2/health/ready', (_request, reply) => reply.code(ready() ? 200 : 503).send({ ready: ready() }));
  app.get('/v2/models/stats', () => ({ model_stats: repository.loaded().map(modelStatistics) }));
  app.post('/v2/repository/index', async ({ body }) => {
    const onlyReady = wantsReadyOnly(body);
    await repository.scan();
    return repository.index().filter(({ state }) => !onlyReady || state === 'READY');
  });
  app.post('/v2/repository/models/:model/load', CONTROL, async (request: ModelRequest) => {
    control(request);
    checkParameters('load', parametersIn(request.body), request.params.model);
    await repository.load(request.params.model);
    return {};
  });
  app.post('/v2/repository/models/:model/unload', CONTROL, async (request: ModelRequest) => {
    control(request);
    checkParameters('unload', parametersIn(request.body), request.params.model);
    await repository.unload(request.params.model);
    return {};
  });
  for (const path of ['/v2/models/:model', '/v2/models/:model/versions/:version']) {
    app.get(path, (request: ModelRequest) => {
      const { model, version: asked } = request.params;
      return modelMetadata(repository.get(model, asked), repository);
    });
    app.get(`${path}/ready`, (request: ModelRequest) => {
      const { model, version: asked } = request.params;
      return { name: repository.get(model, asked).name, ready: true };
    });
    app.get(`${path}/config`, (request: ModelRequest) => {
      const { model, version: asked } = request.params;
      return modelConfig(repository.get(model, asked), inference.maxRequestItems);
    });
    app.get(`${path}/stats`, (request: ModelRequest) => {
      const { model, version: asked } = request.params;
      const models = asked ? [repository.get(model, asked)] : repository.versionsOf(model);
      return { model_stats: models.map(modelStatistics) };
    });
    app.post<{ Params: ModelParams }>(
      `${path}/infer`,
      {
        onRequest: (request, reply, done) => {
          const { model, version: asked } = request.params;
          const retryAfter = inference.refuses(request.access.client, model, asked);
          if (retryAfter === undefined) return done();
          reportFailure({ protocol: 'rest', error: BUSY, request: `POST ${request.url}`, id: request.id });
          refuse(reply, retryAfter);
        },
      },
      (request: ModelRequest, reply) => infer(request, reply, context),
    );
  }
}

/** Errors of unpacked are those of a promise. */
async function unpackedBody(body: Uint8Array, encoding: string, limit: number): Promise<Uint8Array> {
  return unpacked(body, encoding, limit);
}

async function infer(
  request: ModelRequest,
  reply: FastifyReply,
  { inference, bodies, repository }: RestContext,
): Promise<FastifyReply> {
  const received = bodyOf(request.body);
  const { model, version = '' } = request.params;
  const length = jsonLength(request.headers);
  const { request: parsed, binary } =
    length === 0 ? rawRequest(received, repository.get(model, version)) : parseInferBody(received, length);
  const { traceparent } = request.headers as { traceparent?: string };
  const response = await inference.infer(
    { ...parsed, model, version, traceparent },
    callerOf(request, reply),
  );
  // Files may still be read by decoders after one of them has failed.
  if (parsed.inputs.every(({ content }) => content instanceof Tensor)) bodies.giveBack(received);
  const { body, headerLength } = formatInferResponse(response, binary);
  reply.header('x-request-id', request.id);
  reply.type(headerLength === undefined ? 'application/json' : 'application/octet-stream');
  if (headerLength !== undefined) reply.header('Inference-Header-Content-Length', headerLength);
  const encoding = wantedEncoding(request.headers['accept-encoding'] as string | undefined);
  if (encoding === undefined) return reply.send(body);
  return reply.header('content-encoding', encoding).send(await packed(body, encoding));
}

/** Length of the JSON at the start of a body; undefined if all of it is JSON. */
function jsonLength(headers: IncomingHttpHeaders): number | undefined {
  const header = headers[HEADER_LENGTH];
  return header === undefined ? undefined : Number(header);
}

const REFUSAL = JSON.stringify({ error: QUEUE_FULL, code: 'BUSY' });

/**
 * Answers a request whose body wasn't read, which Node.js then skips. A server that is overloaded sends far more of these than
 * answers, so they go past the framework.
 */
function refuse(reply: FastifyReply, retryAfter: number): void {
  reply.hijack();
  reply.raw.writeHead(429, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': REFUSAL.length,
    'retry-after': String(retryAfter),
  });
  reply.raw.end(REFUSAL);
}

/** The body of an index request is optional; it can ask for ready models only. */
function wantsReadyOnly(body: unknown): boolean {
  if (!(body instanceof Uint8Array) || body.length === 0) return false;
  return parseJson(body, z.object({ ready: z.boolean().default(false) })).ready;
}

/** Of a request to load or unload a model, whose body is optional. */
function parametersIn(body: unknown): Parameters {
  if (!(body instanceof Uint8Array) || body.length === 0) return {};
  return parseJson(body, z.object({ parameters: z.record(z.string(), z.any()).default({}) })).parameters;
}

function bodyOf(body: unknown): Uint8Array {
  if (body instanceof Uint8Array) return body;
  throw new ServerError('INVALID_ARGUMENT', 'body: it is missing; send JSON with inputs');
}

/** Leaves when the client closes the connection before it has received its answer. */
function callerOf({ access, id }: ModelRequest, { raw }: FastifyReply): Caller {
  const caller = new Caller(access, id);
  raw.on('close', () => {
    if (!raw.writableFinished) caller.disconnect();
  });
  return caller;
}
