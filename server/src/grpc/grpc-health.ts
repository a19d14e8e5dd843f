import { join } from 'node:path';
import {
  loadPackageDefinition,
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceClientConstructor,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

/** The service that it speaks of, and the server as a whole. */
const SERVICES = ['', 'inference.GRPCInferenceService'];
/** Between two looks at what a watcher is told when it changes. */
const WATCH_MS = 500;

interface HealthRequest {
  readonly service: string;
}
type State = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** The service's definition, for servers and clients. */
export function loadHealth(): ServiceClientConstructor {
  const file = join(__dirname, '..', '..', 'proto', 'health.proto');
  const loaded = loadPackageDefinition(loadSync(file, { keepCase: true, enums: String, defaults: true }));
  return (loaded as unknown as { grpc: { health: { v1: { Health: ServiceClientConstructor } } } }).grpc.health
    .v1.Health;
}

/** Adds gRPC's health service, which probes and balancers use. */
export function addHealth(
  server: Server,
  { ready, draining }: { readonly ready: () => boolean; readonly draining: () => boolean },
): void {
  const stateOf = ({ service }: HealthRequest): State => {
    if (!SERVICES.includes(service)) return 'SERVICE_UNKNOWN';
    return ready() ? 'SERVING' : 'NOT_SERVING';
  };
  server.addService(loadHealth().service, {
    Check: ({ request }: ServerUnaryCall<HealthRequest, object>, callback: sendUnaryData<object>) => {
      const state = stateOf(request);
      if (state !== 'SERVICE_UNKNOWN') return callback(null, { status: state });
      callback({
        code: status.NOT_FOUND,
        details: `service ${request.service.slice(0, 100)}: it is unknown`,
      });
    },
    Watch: (call: ServerWritableStream<HealthRequest, object>) => {
      let last: State | undefined;
      const look = () => {
        const state = stateOf(call.request);
        if (state !== last) call.write({ status: state });
        last = state;
        // Otherwise the server would wait for the watchers.
        if (draining()) call.end();
      };
      const timer = setInterval(look, WATCH_MS).unref();
      for (const event of ['cancelled', 'finish', 'close']) call.on(event, () => clearInterval(timer));
      look();
    },
  });
}
