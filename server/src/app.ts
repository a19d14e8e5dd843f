import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import fastify, { type FastifyError, type FastifyInstance, type FastifyRequest } from 'fastify';
import { type Access, type Authenticate, EVERYTHING } from './auth.js';
import { awaitingContinue } from './bodies.js';
import type { ControlPlane } from './control.js';
import { asServerError, ServerError } from './errors.js';
import type { ReportFailure } from './failures.js';
import type { ParsedOptions } from './options.js';
import type { Pem } from './tls.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Set once the request is authenticated. */
    access: Access;
  }
  interface FastifyInstance {
    /** Closes connections that have no request under way, also those that never sent one. */
    closeSilent(): void;
  }
  interface FastifyContextConfig {
    /** Whether it belongs to the control plane. */
    control?: boolean;
  }
}

/** Paths that need no token, because probes have none. */
const OPEN_PATHS = new Set(['/v2/health/live', '/v2/health/ready']);

interface AppContext {
  readonly pem: Pem | undefined;
  readonly control: ControlPlane;
  readonly draining: () => boolean;
  readonly authenticate: Authenticate;
  readonly reportFailure: ReportFailure;
}

/** The HTTP side of a server, without its routes: tokens are checked, and failures are answered, counted and logged. */
export function createApp(
  { bodyLimit, requestTimeout, maxConnections, accessLog, log }: ParsedOptions,
  { pem, control, draining, authenticate, reportFailure }: AppContext,
): FastifyInstance {
  const certified = pem?.ca !== undefined;
  const https = pem && { ...pem, requestCert: certified, rejectUnauthorized: certified };
  const app = fastify({
    bodyLimit,
    requestTimeout,
    requestIdHeader: 'x-request-id',
    genReqId: () => randomUUID(),
    // The hook below answers instead, as JSON and with Retry-After.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    [https ? 'https' : 'http']: { ...https, connectionsCheckingInterval: Math.min(1000, requestTimeout) },
  } as object) as unknown as FastifyInstance;
  app.server.headersTimeout = requestTimeout;
  app.server.maxConnections = maxConnections;
  // Otherwise Node.js would ask for every body, before it is known whether the request is refused.
  app.server.on('checkContinue', (request, response) => {
    // A client that is refused doesn't send the body, so that the next request could be taken for it.
    response.setHeader('connection', 'close');
    awaitingContinue.set(request, () => {
      if (!draining()) response.removeHeader('connection');
      response.writeContinue();
    });
    app.server.emit('request', request, response);
  });
  app.decorateRequest('access');
  app.decorate('closeSilent', silentConnections(app));
  app.addHook('onRequest', (request, reply, done) => {
    if (draining()) reply.raw.setHeader('connection', 'close');
    if (control.has(request.raw)) request.access = EVERYTHING;
    else if (!OPEN_PATHS.has(request.url))
      request.access = authenticate(request.headers.authorization, addressOf(request));
    if (request.routeOptions.config.control) control.check(request.raw, `path ${request.url}`);
    done();
  });
  if (accessLog) {
    app.addHook('onResponse', (request, reply, done) => {
      const { id, method, url, access } = request;
      const caller = access?.client ?? addressOf(request);
      const ms = Number(reply.elapsedTime.toFixed(3));
      log?.({
        event: 'access',
        protocol: 'rest',
        id,
        caller,
        method,
        path: url,
        status: reply.raw.statusCode,
        ms,
      });
      done();
    });
  }
  const report = (error: ServerError, request: FastifyRequest) =>
    reportFailure({ protocol: 'rest', error, request: `${request.method} ${request.url}`, id: request.id });
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const failure = failureOf(error);
    report(failure, request);
    if (failure.options.retryAfter !== undefined) reply.header('retry-after', failure.options.retryAfter);
    if (failure.code === 'UNAVAILABLE') reply.header('retry-after', 1);
    if (failure.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Basic realm="residual-skip"');
    // Otherwise the unread rest of a refused body would be parsed as the next request.
    if (['TOO_LARGE', 'BUSY'].includes(failure.code) && !request.raw.complete)
      reply.header('connection', 'close');
    request.raw.resume();
    return reply
      .code(failure.http)
      .header('x-request-id', request.id)
      .send({ error: failure.message, code: failure.code });
  });
  app.setNotFoundHandler((request) => {
    throw new ServerError('NOT_FOUND', `path ${request.url}: there is no ${request.method} of it`);
  });
  // Node.js answers these itself, before there is a request.
  app.server.on('clientError', ({ code, message }: NodeJS.ErrnoException) => {
    if (code === 'ECONNRESET') return;
    const late = code === 'ERR_HTTP_REQUEST_TIMEOUT';
    const error = new ServerError(late ? 'TIMEOUT' : 'INVALID_ARGUMENT', `request: ${message}`);
    reportFailure({ protocol: 'rest', error, request: '' });
  });
  return app;
}

/** Node.js itself takes a connection that never sent a request for one that is busy. */
function silentConnections({ server }: FastifyInstance): () => void {
  const requests = new Map<Socket, number>();
  const count = (socket: Socket, by: number) => {
    if (requests.has(socket)) requests.set(socket, requests.get(socket)! + by);
  };
  // The same socket for requests, whether or not they are encrypted.
  for (const event of ['connection', 'secureConnection']) {
    server.on(event, (socket: Socket) => {
      requests.set(socket, 0);
      socket.once('close', () => requests.delete(socket));
    });
  }
  server.on('request', ({ socket }, response) => {
    count(socket, 1);
    response.once('close', () => count(socket, -1));
  });
  return () => {
    for (const [socket, running] of requests) if (running === 0) socket.destroy();
  };
}

/** Undefined once the client has left. */
function addressOf({ raw }: FastifyRequest): string {
  return raw.socket.remoteAddress ?? '';
}

/** Fastify's own errors have a status code. */
function failureOf(error: FastifyError): ServerError {
  if (error.statusCode === 413)
    return new ServerError('TOO_LARGE', 'body: it is longer than this server takes; send smaller batches');
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new ServerError('INVALID_ARGUMENT', `request: ${error.message}`);
  return asServerError(error);
}
