import { type IncomingMessage, maxHeaderSize, type RequestListener, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import { type Access, type Authenticate, EVERYTHING } from '../auth.js';
import { requestIdOf } from '../caller.js';
import { asServerError, ServerError, type ServerErrorCode } from '../errors.js';
import type { ReportFailure } from '../observe/failures.js';
import type { ParsedOptions } from '../options.js';
import { awaitingContinue } from './bodies.js';
import { Connections } from './connections.js';
import type { ControlPlane } from './control.js';
import { type InferCall, namedIn } from './rest-infer.js';
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
  /** Answers the requests that go past the framework. */
  readonly infer: (call: InferCall) => Promise<void>;
}

/** The HTTP side of a server, without its routes: tokens are checked, and failures are answered, counted and logged. */
export function createApp(
  { bodyLimit, requestTimeout, maxConnections, accessLog, log }: ParsedOptions,
  { pem, control, draining, authenticate, reportFailure, infer }: AppContext,
): FastifyInstance {
  const certified = pem?.ca !== undefined;
  const https = pem && { ...pem, requestCert: certified, rejectUnauthorized: certified };
  const app = fastify({
    bodyLimit,
    requestTimeout,
    requestIdHeader: false,
    genReqId: ({ headers }: IncomingMessage) => requestIdOf(headers['x-request-id']),
    // The hook below answers instead, as JSON and with Retry-After.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    clientErrorHandler: answerUnread(reportFailure),
    // Where the framework can't take a path apart, it would answer in a form of its own.
    frameworkErrors: (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
      try {
        admit(request.raw, reply.raw);
        return answer(error, request, reply);
      } catch (refused) {
        return answer(refused, request, reply);
      }
    },
    // Names of models are as long as a path may be.
    routerOptions: { maxParamLength: maxHeaderSize },
    [https ? 'https' : 'http']: {
      ...https,
      connectionsCheckingInterval: Math.min(1000, requestTimeout),
      // Checked below instead.
      requireHostHeader: false,
    },
  } as object) as unknown as FastifyInstance;
  app.server.headersTimeout = requestTimeout;
  const connections = new Connections(maxConnections);
  connections.watch(app.server);
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
  // Node.js would answer any other expectation with 417; it may as well be ignored (RFC 9110, 10.1.1).
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response));
  app.decorateRequest('access');
  app.decorate('closeSilent', () => connections.closeSilent());
  /** Who sends a request, if it may be answered; throws ServerError. */
  const admit = (request: IncomingMessage, response: ServerResponse): Access | undefined => {
    if (draining()) response.setHeader('connection', 'close');
    const hosts = request.headersDistinct.host?.length ?? 0;
    if (hosts > 1) throw new ServerError('INVALID_ARGUMENT', 'header Host: there is more than one; send one');
    if (hosts === 0 && request.httpVersion === '1.1')
      throw new ServerError('INVALID_ARGUMENT', 'header Host: it is missing; HTTP/1.1 needs it');
    if (control.has(request)) return EVERYTHING;
    return OPEN_PATHS.has(request.url!)
      ? undefined
      : authenticate(request.headers.authorization, addressOf(request));
  };
  app.addHook('onRequest', (request, reply, done) => {
    const access = admit(request.raw, reply.raw);
    if (access) request.access = access;
    if (request.routeOptions.config.control) control.check(request.raw, `path ${request.url}`);
    done();
  });
  const logAccess = (answered: ServerResponse, id: string, access: Access | undefined, took: number) => {
    const { method, url: path } = answered.req;
    const caller = access?.client ?? addressOf(answered.req);
    const [status, ms] = [answered.statusCode, Number(took.toFixed(3))];
    log?.({ event: 'access', protocol: 'rest', id, caller, method, path, status, ms });
  };
  if (accessLog) {
    app.addHook('onResponse', ({ id, access }, reply, done) => {
      logAccess(reply.raw, id, access, reply.elapsedTime);
      done();
    });
  }
  /**
   * Whether the connection of a refused request is closed although its body is still to come. A body that isn't too long by itself is skipped
   * instead: many clients send all of it before they read the answer, which they would lose with the connection.
   */
  const isCut = (request: IncomingMessage, code: string) => {
    const isShort = Number(request.headers['content-length']) <= bodyLimit;
    return !request.complete && (code === 'BUSY' || (code === 'TOO_LARGE' && !isShort));
  };
  /** What a request that failed is answered. */
  const failed = (error: unknown, request: IncomingMessage, id: string) => {
    const failure = failureOf(error);
    reportFailure({ protocol: 'rest', error: failure, request: `${request.method} ${request.url}`, id });
    const { code } = failure;
    const { retryAfter = code === 'UNAVAILABLE' ? 1 : undefined } = failure.options;
    const headers: Record<string, string> = {
      'x-request-id': id,
      ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }),
      ...(code === 'UNAUTHENTICATED' && { 'www-authenticate': 'Basic realm="residual-skip"' }),
      ...(isCut(request, code) && { connection: 'close' }),
    };
    request.resume();
    return { status: failure.http, headers, body: { error: failure.message, code } };
  };
  const answer = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const { status, headers, body } = failed(error, request.raw, request.id);
    return reply.code(status).headers(headers).send(body);
  };
  app.setErrorHandler(answer);
  const framework = app.server.listeners('request') as RequestListener[];
  app.server.removeAllListeners('request');
  app.server.on('request', (request, response) => {
    if (connections.isFull(request.socket)) return;
    const { socket } = request;
    const ended = connections.begin(socket, () => request.complete);
    response.once('close', () => {
      ended();
      // A connection that began before would stay open for later requests, and the server with it.
      if (!draining() || !connections.isSilent(socket)) return;
      if (request.complete) socket.destroySoon();
      else request.once('end', () => socket.destroySoon());
    });
    let id = '';
    const fail = (error: unknown) => {
      if (response.headersSent || response.destroyed) return;
      const { status, headers, body } = failed(error, request, id);
      const text = JSON.stringify(body);
      const type = { 'content-type': 'application/json; charset=utf-8' };
      response.writeHead(status, { ...headers, ...type, 'content-length': Buffer.byteLength(text) });
      response.end(text);
    };
    try {
      const named = namedIn(request);
      if (!named) {
        for (const listener of framework) listener(request, response);
        return;
      }
      id = requestIdOf(request.headers['x-request-id']);
      let access: Access | undefined;
      if (accessLog) {
        const began = performance.now();
        response.once('close', () => logAccess(response, id, access, performance.now() - began));
      }
      access = admit(request, response)!;
      infer({ request, response, access, named, id }).catch(fail);
    } catch (error) {
      fail(error);
    }
  });
  app.setNotFoundHandler((request) => {
    throw new ServerError('NOT_FOUND', `path ${request.url}: there is no ${request.method} of it`);
  });
  return app;
}

/** What is no request, or isn't whole in time: its status, reason and code. */
const UNREAD: Readonly<Record<string, readonly [string, ServerErrorCode]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'TIMEOUT'],
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'TOO_LARGE'],
};

function answerUnread(reportFailure: ReportFailure) {
  return ({ code = '', message }: NodeJS.ErrnoException, socket: Socket) => {
    if (code === 'ECONNRESET' || socket.destroyed) return;
    const [status, known] = UNREAD[code] ?? ['400 Bad Request', 'INVALID_ARGUMENT'];
    const error = new ServerError(known, `request: ${message}`);
    reportFailure({ protocol: 'rest', error, request: '' });
    const body = JSON.stringify({ error: error.message, code: error.code });
    const head = [
      'content-type: application/json; charset=utf-8',
      `content-length: ${Buffer.byteLength(body)}`,
    ];
    const lines = [`HTTP/1.1 ${status}`, ...head, 'connection: close', '', body];
    if (socket.writable) socket.write(lines.join('\r\n'));
    socket.destroy();
  };
}

/** Undefined once the client has left. */
function addressOf({ socket }: IncomingMessage): string {
  return socket.remoteAddress ?? '';
}

/** Fastify's own errors have a status code. */
function failureOf(cause: unknown): ServerError {
  const error = cause as FastifyError;
  if (error.statusCode === 413)
    return new ServerError('TOO_LARGE', 'body: it is longer than this server takes; send smaller batches');
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new ServerError('INVALID_ARGUMENT', `request: ${error.message}`);
  return asServerError(error);
}
