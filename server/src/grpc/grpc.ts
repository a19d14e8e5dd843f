import { once } from 'node:events';
import { join } from 'node:path';
import {
  loadPackageDefinition,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceClientConstructor,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { type Access, type Authenticate, checkRight } from '../auth.js';
import { Caller } from '../caller.js';
import { asServerError, ServerError } from '../errors.js';
import type { Bodies } from '../http/bodies.js';
import type { Connections } from '../http/connections.js';
import type { ControlPlane } from '../http/control.js';
import { checkParameters } from '../http/parameters.js';
import type { Pem } from '../http/tls.js';
import type { Inference } from '../inference/infer.js';
import type { Parameters } from '../inference/messages.js';
import { EXTENSIONS, modelConfig, modelMetadata, modelStatistics } from '../models/metadata.js';
import type { ModelRepository } from '../models/repository.js';
import type { ReportFailure } from '../observe/failures.js';
import type { ParsedOptions } from '../options.js';
import { format, formatParameters, type ModelInferRequest, parse } from './grpc-format.js';
import { addressOfPeer, guard, REQUEST_ID, unread } from './grpc-guard.js';
import { addHealth, loadHealth } from './grpc-health.js';
import { hasData, MAX_FIELDS, structureBytes } from './grpc-structure.js';

interface Named {
  readonly name: string;
  readonly version: string;
}

interface ControlRequest {
  readonly model_name: string;
  readonly parameters: object;
}

export interface GrpcContext {
  readonly bodies: Bodies;
  readonly connections: Connections;
  readonly repository: ModelRepository;
  readonly inference: Inference;
  readonly version: string;
  readonly ready: () => boolean;
  readonly draining: () => boolean;
  /** Has the number of calls under way. */
  readonly active: { calls: number };
  readonly authenticate: Authenticate;
  readonly reportFailure: ReportFailure;
  /** Maximum size of a message in bytes. */
  readonly bodyLimit: number;
  /** Maximum size of what isn't data in binary form. */
  readonly jsonLimit: number;
  readonly requestTimeout: number;
  readonly maxStreams: number;
  readonly control: ControlPlane;
  /** Logs each call; undefined for none. */
  readonly accessLog: ParsedOptions['log'];
}

/** The file that describes the service, for clients. */
export const PROTO_FILE = join(__dirname, '..', '..', 'proto', 'open_inference.proto');

/** The service's definition, for servers and clients. */
export function loadService(): ServiceClientConstructor {
  const definition = loadSync(PROTO_FILE, { keepCase: true, longs: Number, defaults: true, oneofs: true });
  const { inference } = loadPackageDefinition(definition) as unknown as {
    inference: { GRPCInferenceService: ServiceClientConstructor };
  };
  return inference.GRPCInferenceService;
}

type InferStream = ServerDuplexStream<ModelInferRequest, object>;

type Handler = (request: never, call: ServerUnaryCall<unknown, unknown>) => unknown;

/** The Open Inference Protocol v2 over gRPC. */
export function createGrpcServer(context: GrpcContext): Server {
  const { bodies, repository, inference, version, ready, authenticate, reportFailure } = context;
  const { service } = loadService();
  const unary = (work: Handler) => handlerOf(work, reportFailure);
  // Probes have no token.
  const probes = [service.ServerLive!, service.ServerReady!, ...Object.values(loadHealth().service)];
  const open = new Set(probes.map(({ path }) => path));
  const server = new Server({
    'grpc.max_receive_message_length': context.bodyLimit,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': context.maxStreams,
    interceptors: [
      guard({
        bodies,
        connections: context.connections,
        jsonLimit: context.jsonLimit,
        limitOf: (path) => (hasData(path) ? context.bodyLimit : context.jsonLimit),
        authenticate,
        requestTimeout: context.requestTimeout,
        open,
        reportFailure,
        active: context.active,
        accessLog: context.accessLog,
      }),
    ],
  });
  const accessOf = (call: Pick<InferStream, 'metadata' | 'getPeer'>) =>
    authenticate(call.metadata.get('authorization')[0]?.toString(), addressOfPeer(call.getPeer()));
  const control = (call: ServerUnaryCall<unknown, unknown>) => {
    context.control.check(undefined, 'model control');
    checkRight(accessOf(call), 'control', 'model control');
  };
  const isReady = ({ name, version: asked }: Named) => {
    try {
      repository.get(name, asked);
      return true;
    } catch (error) {
      if (asServerError(error).code === 'UNAVAILABLE') return false;
      throw error;
    }
  };
  server.addService(limitedService(service, context.jsonLimit), {
    ServerLive: unary(() => ({ live: true })),
    ServerReady: unary(() => ({ ready: ready() })),
    ModelReady: unary((request: Named) => ({ ready: isReady(request) })),
    ServerMetadata: unary(() => ({ name: 'residual-skip', version, extensions: EXTENSIONS })),
    ModelMetadata: unary(({ name, version: asked }: Named) => {
      const { parameters, ...rest } = modelMetadata(repository.get(name, asked), repository);
      return { ...rest, parameters: formatParameters(parameters) };
    }),
    ModelConfig: unary(({ name, version: asked }: Named) => ({
      config: modelConfig(repository.get(name, asked), inference.maxRequestItems),
    })),
    ModelInfer: unary((request: ModelInferRequest, call) => {
      const caller = new Caller(accessOf(call), requestIdOf(call.metadata));
      call.on('cancelled', () => caller.disconnect());
      return infer(request, call.metadata, caller, inference, bodies);
    }),
    ModelStreamInfer: (call: InferStream) => {
      const access = accessOf(call);
      const one = (request: ModelInferRequest, caller: Caller) =>
        infer(request, call.metadata, caller, inference, bodies);
      void inferStream(call, access, one, reportFailure);
    },
    ModelStatistics: unary(({ name, version: asked }: Named) => {
      const all =
        name === ''
          ? repository.loaded()
          : asked === ''
            ? repository.versionsOf(name)
            : [repository.get(name, asked)];
      return { model_stats: all.map(modelStatistics) };
    }),
    RepositoryIndex: unary(async ({ ready: onlyReady }: { ready: boolean }) => {
      await repository.scan();
      return { models: repository.index().filter(({ state }) => !onlyReady || state === 'READY') };
    }),
    RepositoryModelLoad: unary(async ({ model_name, parameters }: ControlRequest, call) => {
      control(call);
      checkParameters('load', parameters as Parameters, model_name);
      await repository.load(model_name);
      return {};
    }),
    RepositoryModelUnload: unary(async ({ model_name, parameters }: ControlRequest, call) => {
      control(call);
      checkParameters('unload', parameters as Parameters, model_name);
      await repository.unload(model_name);
      return {};
    }),
  });
  addHealth(server, context);
  return server;
}

/** The caller's, as in REST, or that of the guard. */
function requestIdOf(metadata: Metadata): string {
  return metadata.get(REQUEST_ID)[0]!.toString();
}

/** Insecure without certificates. */
export function grpcCredentials(pem: Pem | undefined): ServerCredentials {
  if (!pem) return ServerCredentials.createInsecure();
  const { cert: cert_chain, key: private_key, ca = null } = pem;
  return ServerCredentials.createSsl(ca, [{ cert_chain, private_key }], ca !== null);
}

/** The service with limits on its messages. Instead of a message that exceeds them, or is none, a handler is given the error. */
function limitedService(service: ServiceDefinition, limit: number): ServiceDefinition {
  const limited = ([name, method]: [string, ServiceDefinition[string]]) => {
    const requestDeserialize = (bytes: Buffer) => {
      if (structureBytes(bytes, name, limit) > limit) {
        return new ServerError(
          'TOO_LARGE',
          `request: it has more than ${MAX_FIELDS} fields, or ${limit} bytes beside raw_input_contents and bytes_contents; send tensors in raw_input_contents`,
        );
      }
      try {
        return method.requestDeserialize(bytes);
      } catch (cause) {
        const { message } = cause as Error;
        return new ServerError('INVALID_ARGUMENT', `request: it can't be decoded (${message})`, { cause });
      }
    };
    return [name, { ...method, requestDeserialize }];
  };
  return Object.fromEntries(Object.entries(service).map(limited));
}

function handlerOf(work: Handler, reportFailure: ReportFailure) {
  return async (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>): Promise<void> => {
    try {
      if (call.request instanceof ServerError) throw call.request;
      callback(null, await work(call.request as never, call));
    } catch (error) {
      const failure = asServerError(error);
      const id = requestIdOf(call.metadata);
      reportFailure({ protocol: 'grpc', error: failure, request: call.getPath(), id });
      callback({ code: failure.grpc, details: failure.message });
    }
  };
}

/** Answers the requests of a stream one after another. An error is an answer, too. */
async function inferStream(
  call: InferStream,
  access: Access,
  one: (request: ModelInferRequest, caller: Caller) => Promise<object>,
  reportFailure: ReportFailure,
): Promise<void> {
  const requestId = requestIdOf(call.metadata);
  let caller = new Caller(access, requestId);
  call.on('cancelled', () => caller.disconnect());
  try {
    // Otherwise the stream would be destroyed at its end, before the answers are sent.
    const requests = call.iterator({ destroyOnReturn: false });
    for await (const request of requests as AsyncIterable<ModelInferRequest | ServerError>) {
      caller = new Caller(access, requestId);
      const answer = await (request instanceof ServerError
        ? Promise.reject(request)
        : one(request, caller)
      ).then(
        (infer_response) => ({ infer_response }),
        (cause: unknown) => {
          const error = asServerError(cause);
          const { id = '', model_name = '' } = request as Partial<ModelInferRequest>;
          reportFailure({ protocol: 'grpc', error, request: call.getPath(), id: requestId });
          return { error_message: error.message, infer_response: { id, model_name } };
        },
      );
      unread.get(request)?.();
      if (!call.write(answer)) await once(call, 'drain');
    }
    call.end();
  } catch {
    // The client has left, or the guard has ended the call.
  }
}

async function infer(
  request: ModelInferRequest,
  metadata: Metadata,
  caller: Caller,
  inference: Inference,
  bodies: Bodies,
): Promise<object> {
  const traceparent = metadata.get('traceparent')[0]?.toString();
  const copies: Uint8Array[] = [];
  const aligned = (bytes: Uint8Array) => {
    const own = bodies.memory.aligned(bytes);
    if (own !== bytes) copies.push(own);
    return own;
  };
  const response = await inference.infer({ ...parse(request, aligned), traceparent }, caller);
  for (const copy of copies) bodies.memory.giveBack(copy);
  return format(response);
}
