import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Tensor } from 'residual-skip';
import { z } from 'zod';
import { checkRight } from './auth.js';
import type { Bodies } from './bodies.js';
import { Caller } from './caller.js';
import { ServerError } from './errors.js';
import type { ReportFailure } from './failures.js';
import { BUSY, type Inference } from './infer.js';
import { EXTENSIONS, modelMetadata, modelStatistics } from './metadata.js';
import { checkOrigin } from './origin.js';
import { QUEUE_FULL } from './queue.js';
import type { ModelRepository } from './repository.js';
import { formatInferResponse, parseInferBody, parseJson } from './rest-format.js';

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

/** Adds the REST routes of the Open Inference Protocol v2 and of EXTENSIONS. */
export function addRestRoutes(app: FastifyInstance, context: RestContext): void {
  const { repository, inference, bodies, version, ready, reportFailure } = context;
  // Fastify's own would read other types, such as plain text, without these limits.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', ({ headers, access }, message, done) =>
    bodies.read(message, access?.client ?? '', jsonLength(headers), done),
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
  app.post('/v2/repository/models/:model/load', async (request: ModelRequest) => {
    control(request);
    await repository.load(request.params.model);
    return {};
  });
  app.post('/v2/repository/models/:model/unload', async (request: ModelRequest) => {
    control(request);
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

async function infer(
  request: ModelRequest,
  reply: FastifyReply,
  { inference, bodies }: RestContext,
): Promise<FastifyReply> {
  const received = bodyOf(request.body);
  const { request: parsed, binary } = parseInferBody(received, jsonLength(request.headers));
  const { model, version = '' } = request.params;
  const { traceparent } = request.headers as { traceparent?: string };
  const response = await inference.infer(
    { ...parsed, model, version, traceparent },
    callerOf(request, reply),
  );
  // Files may still be read by decoders after one of them has failed.
  if (parsed.inputs.every(({ content }) => content instanceof Tensor)) bodies.giveBack(received);
  const { body, headerLength } = formatInferResponse(response, binary);
  if (headerLength === undefined) return reply.type('application/json').send(body);
  return reply
    .type('application/octet-stream')
    .header('Inference-Header-Content-Length', headerLength)
    .send(body);
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

function bodyOf(body: unknown): Uint8Array {
  if (body instanceof Uint8Array) return body;
  throw new ServerError('INVALID_ARGUMENT', 'body: it is missing; send JSON with inputs');
}

/** Leaves when the client closes the connection before it has received its answer. */
function callerOf({ access }: ModelRequest, { raw }: FastifyReply): Caller {
  const caller = new Caller(access);
  raw.on('close', () => {
    if (!raw.writableFinished) caller.disconnect();
  });
  return caller;
}
