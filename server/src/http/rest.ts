import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { checkRight } from '../auth.js';
import type { Inference } from '../inference/infer.js';
import type { Parameters } from '../inference/messages.js';
import { EXTENSIONS, modelConfig, modelMetadata, modelStatistics } from '../models/metadata.js';
import type { ModelRepository } from '../models/repository.js';
import type { ReportFailure } from '../observe/failures.js';
import type { Bodies } from './bodies.js';
import { parseJsonAs } from './json.js';
import { checkOrigin } from './origin.js';
import { checkParameters } from './parameters.js';

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
  const { repository, inference, bodies, version, ready } = context;
  // Fastify's own would read other types, such as plain text, without these limits.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', ({ access }: FastifyRequest, message: IncomingMessage) =>
    bodies.receive(message, { client: access?.client ?? '', json: undefined }),
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
  }
}

/** The body of an index request is optional; it can ask for ready models only. */
function wantsReadyOnly(body: unknown): boolean {
  if (!(body instanceof Uint8Array) || body.length === 0) return false;
  return parseJsonAs(body, z.object({ ready: z.boolean().default(false) })).ready;
}

/** Of a request to load or unload a model, whose body is optional. */
function parametersIn(body: unknown): Parameters {
  if (!(body instanceof Uint8Array) || body.length === 0) return {};
  return parseJsonAs(body, z.object({ parameters: z.record(z.string(), z.any()).default({}) })).parameters;
}
