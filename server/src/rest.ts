import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ServerError } from './errors.js';
import type { Inference } from './infer.js';
import { EXTENSIONS, modelMetadata, modelStatistics } from './metadata.js';
import type { ModelRepository } from './repository.js';
import { formatInferResponse, parseInferBody, parseJson } from './rest-format.js';

const HEADER_LENGTH = 'inference-header-content-length';

interface ModelParams {
  readonly model: string;
  readonly version?: string;
}
type ModelRequest = FastifyRequest<{ Params: ModelParams }>;

export interface RestContext {
  readonly repository: ModelRepository;
  readonly inference: Inference;
  readonly version: string;
  /** False while the server starts or drains. */
  readonly ready: () => boolean;
}

/** Adds the REST routes of the Open Inference Protocol v2 and of EXTENSIONS. */
export function addRestRoutes(app: FastifyInstance, context: RestContext): void {
  const { repository, inference, version, ready } = context;
  app.addContentTypeParser(
    ['application/json', 'application/octet-stream'],
    { parseAs: 'buffer' },
    (_request, body, done) => done(null, body),
  );

  app.get('/v2', () => ({ name: 'residual-skip', version, extensions: EXTENSIONS }));
  app.get('/v2/health/live', () => ({ live: true }));
  app.get('/v2/health/ready', (_request, reply) => reply.code(ready() ? 200 : 503).send({ ready: ready() }));
  app.get('/v2/models/stats', () => ({ model_stats: repository.loaded().map(modelStatistics) }));
  app.post('/v2/repository/index', async ({ body }) => {
    const onlyReady = wantsReadyOnly(body);
    await repository.scan();
    return repository.index().filter(({ state }) => !onlyReady || state === 'READY');
  });
  app.post('/v2/repository/models/:model/load', (request: ModelRequest) =>
    repository.load(request.params.model).then(() => ({})),
  );
  app.post('/v2/repository/models/:model/unload', (request: ModelRequest) =>
    repository.unload(request.params.model).then(() => ({})),
  );
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
        onRequest: async ({ params }) => inference.admit(params.model, params.version),
      },
      (request: ModelRequest, reply) => infer(request, reply, inference),
    );
  }
}

async function infer(
  request: ModelRequest,
  reply: FastifyReply,
  inference: Inference,
): Promise<FastifyReply> {
  const header = request.headers[HEADER_LENGTH];
  const { request: parsed, binary } = parseInferBody(
    bodyOf(request.body),
    header === undefined ? undefined : Number(header),
  );
  const { model, version = '' } = request.params;
  const { traceparent } = request.headers as { traceparent?: string };
  const response = await inference.infer({ ...parsed, model, version, traceparent }, goneSignal(reply));
  const { body, headerLength } = formatInferResponse(response, binary);
  if (headerLength === undefined) return reply.type('application/json').send(body);
  return reply
    .type('application/octet-stream')
    .header('Inference-Header-Content-Length', headerLength)
    .send(body);
}

/** The body of an index request is optional; it can ask for ready models only. */
function wantsReadyOnly(body: unknown): boolean {
  if (!(body instanceof Uint8Array) || body.length === 0) return false;
  return parseJson(body, z.object({ ready: z.boolean().default(false) })).ready;
}

function bodyOf(body: unknown): Uint8Array {
  if (body instanceof Uint8Array) return body;
  throw new ServerError('INVALID_ARGUMENT', 'the request has no body; send JSON with inputs');
}

/** Aborted when the client closes the connection before it has received its answer. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.on('close', () => {
    if (!reply.raw.writableFinished) controller.abort();
  });
  return controller.signal;
}
