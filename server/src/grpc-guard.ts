import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { Authenticate } from './auth.js';
import type { Bodies } from './bodies.js';
import { asServerError, ServerError } from './errors.js';
import type { ReportFailure } from './failures.js';

export interface GuardOptions {
  readonly bodies: Bodies;
  readonly authenticate: Authenticate;
  /** Milliseconds a client has to send its request. */
  readonly requestTimeout: number;
  /** Paths of methods that need no token. */
  readonly open: ReadonlySet<string>;
  readonly reportFailure: ReportFailure;
  /** Counts the calls under way. */
  readonly active: { calls: number };
}

/**
 * Time for the status of a refused call to be sent before its stream is closed, which discards what is queued. (Node.js can also
 * abort when a stream is closed while its connection is being read, as it is when a call is refused: nodejs/node#38964.)
 */
const FLUSH_MS = 100;

/**
 * Watches over a call until its request is complete: its token is checked before anything of the request is read, its bytes count
 * as those of other bodies, and it ends when it takes too long.
 */
export function guard({
  bodies,
  authenticate,
  requestTimeout,
  open,
  reportFailure,
  active,
}: GuardOptions): ServerInterceptor {
  return ({ path, requestStream }, call) => {
    const stream = streamOf(call);
    const refuse = (cause: unknown) => {
      const error = asServerError(cause);
      const { grpc, message } = error;
      reportFailure({ protocol: 'grpc', error, request: path });
      call.sendStatus({ code: grpc, details: message });
      // Otherwise what was received would be kept until the client also ends the call.
      setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), FLUSH_MS).unref();
    };
    const address = addressOfPeer(call.getPeer());
    const late = () =>
      refuse(
        new ServerError('TIMEOUT', `request: it wasn't complete after ${requestTimeout} ms; send it faster`),
      );
    let body: { readonly add: (bytes: number) => void; readonly end: () => void } | undefined;
    let timer: NodeJS.Timeout | undefined;
    const begin = () => {
      timer = setTimeout(late, requestTimeout);
      body = bodies.begin(address, refuse);
      return body;
    };
    const done = () => {
      clearTimeout(timer);
      body?.end();
      body = undefined;
    };
    begin();
    // A stream of messages may rest between them.
    stream.on('data', ({ length }: Uint8Array) =>
      (body ?? (requestStream ? begin() : undefined))?.add(length),
    );
    active.calls++;
    stream.once('close', () => {
      active.calls--;
      done();
    });
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, receive) => {
            try {
              if (!open.has(path)) authenticate(metadata.get('authorization')[0]?.toString(), address);
            } catch (error) {
              refuse(error);
              return;
            }
            receive(metadata);
          },
          onReceiveMessage: (message, receive) => {
            if (requestStream) {
              clearTimeout(timer);
              if (body) unread.set(message, body.end);
              body = undefined;
            }
            receive(message);
          },
          onReceiveHalfClose: (receive) => {
            done();
            receive();
          },
        }),
    });
  };
}

/**
 * Of messages of streams that nobody has worked on yet: what ends the count of their bytes. grpc-js reads some messages ahead.
 */
export const unread = new WeakMap<object, () => void>();

/** Of `address:port`, as grpc-js names a client. */
export function addressOfPeer(peer: string): string {
  return peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}

/** grpc-js hands a request on when it is complete; only the stream shows what was received before. */
function streamOf(call: ServerInterceptingCallInterface): ServerHttp2Stream {
  return (call as unknown as { readonly stream: ServerHttp2Stream }).stream;
}
