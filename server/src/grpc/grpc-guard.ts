import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import type { Authenticate } from '../auth.js';
import { requestIdOf } from '../caller.js';
import { asServerError, ServerError } from '../errors.js';
import { type Bodies, crumbled, isCrumbled } from '../http/bodies.js';
import type { Connections } from '../http/connections.js';
import { isEncoding } from '../http/encoding.js';
import type { ReportFailure } from '../observe/failures.js';
import type { ParsedOptions } from '../options.js';
import { structureBytes } from './grpc-structure.js';

export interface GuardOptions {
  readonly bodies: Bodies;
  readonly connections: Connections;
  /** Maximum size of an unpacked message of a method in bytes. */
  readonly limitOf: (path: string) => number;
  /** Maximum size of what isn't data in binary form. */
  readonly jsonLimit: number;
  readonly authenticate: Authenticate;
  /** Milliseconds a client has to send its request. */
  readonly requestTimeout: number;
  /** Paths of methods that need no token. */
  readonly open: ReadonlySet<string>;
  readonly reportFailure: ReportFailure;
  /** Counts the calls under way. */
  readonly active: { calls: number };
  /** Logs each call; undefined for none. */
  readonly accessLog: ParsedOptions['log'];
}

/** Metadata of a request and its status, as the header of REST. */
export const REQUEST_ID = 'x-request-id';

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
  connections,
  limitOf,
  jsonLimit,
  authenticate,
  requestTimeout,
  open,
  reportFailure,
  active,
  accessLog,
}: GuardOptions): ServerInterceptor {
  return ({ path, requestStream, responseStream }, call) => {
    const stream = streamOf(call);
    const started = performance.now();
    let id = '';
    let caller = addressOfPeer(call.getPeer());
    let status: number | undefined;
    const refuse = (cause: unknown) => {
      const error = asServerError(cause);
      const { grpc, message } = error;
      reportFailure({ protocol: 'grpc', error, request: path, id });
      status = grpc;
      const metadata = new Metadata();
      if (id) metadata.set(REQUEST_ID, id);
      call.sendStatus({ code: grpc, details: message, metadata });
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
    };
    const done = () => {
      clearTimeout(timer);
      body?.end();
      body = undefined;
    };
    begin();
    const count = (bytes: number) => {
      // A message may be unpacked after its call has ended.
      if (stream.destroyed) return;
      // A stream of messages may rest between them.
      if (requestStream && !body) begin();
      body?.add(bytes);
    };
    let [frames, received] = [0, 0];
    stream.on('data', ({ length }: Uint8Array) => {
      count(Math.max(length, FRAME_BYTES));
      frames++;
      received += length;
      if (!requestStream && status === undefined && received > limitOf(path) + HEAD_BYTES)
        refuse(new ServerError('TOO_LARGE', `request: it has more than ${limitOf(path)} bytes`));
      // Messages of a stream may be small.
      if (!requestStream && status === undefined && isCrumbled(frames, received))
        refuse(crumbled(frames, received));
    });
    const own = call as unknown as Unpacking;
    const { decompressMessage } = own;
    const unpack = async (message: Uint8Array, encoding: string) => {
      if (!isEncoding(encoding)) return decompressMessage.call(own, message, encoding);
      const bytes = await bodies.unpack(caller, message.subarray(HEAD_BYTES), encoding, limitOf(path));
      count(bytes.length);
      return bytes;
    };
    own.decompressMessage = async (message, encoding) => {
      try {
        const bytes = await unpack(message, encoding);
        const turn = bodies.turn(caller, Math.min(structureBytes(bytes, path, jsonLimit), jsonLimit));
        if (turn) await turn;
        return bytes;
      } catch (error) {
        if (error instanceof ServerError) refuse(error);
        throw error;
      }
    };
    /** End the count of the call itself, and of its answer while the client reads it. */
    let ended: (() => void) | undefined;
    let read: (() => void) | undefined;
    const drop = () => {
      if (stream.writableLength > 0) stream.close(constants.NGHTTP2_CANCEL);
    };
    stream.on('drain', () => read?.());
    active.calls++;
    const leave = connections.begin(stream.session!.socket, () => stream.readableEnded);
    stream.once('close', () => {
      active.calls--;
      leave();
      done();
      ended?.();
      read?.();
      const ms = Number((performance.now() - started).toFixed(3));
      // Without a status, the client has left.
      accessLog?.({ event: 'access', protocol: 'grpc', id, caller, path, status: status ?? null, ms });
    });
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, receive) => {
            try {
              id = requestIdOf(metadata.get(REQUEST_ID)[0]);
              metadata.set(REQUEST_ID, id);
              if (!open.has(path))
                caller = authenticate(metadata.get('authorization')[0]?.toString(), address).client;
            } catch (error) {
              refuse(error);
              return;
            }
            count(CALL_BYTES);
            if (requestStream || responseStream) {
              // It may rest for as long as its client likes.
              const { add, end } = bodies.begin(caller, refuse);
              ended = end;
              add(CALL_BYTES);
            }
            if (status === undefined) receive(metadata);
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
      sendMessage: (message, next) => {
        next(message);
        read?.();
        read = bodies.answer(caller, CALL_BYTES + stream.writableLength, drop);
      },
      sendStatus: (sent, next) => {
        status = sent.code;
        const metadata = sent.metadata ?? new Metadata();
        metadata.set(REQUEST_ID, id);
        next({ ...sent, metadata });
      },
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

/** How grpc-js unpacks messages that are packed: by itself, it would unpack any number of them at a time. */
interface Unpacking {
  decompressMessage(message: Uint8Array, encoding: string): Uint8Array | Promise<Uint8Array>;
}
/** About the memory of a call of which nothing has come. */
const CALL_BYTES = 32 << 10;
/** grpc-js keeps the frames of an unfinished message: about the memory that a tiny one takes. */
const FRAME_BYTES = 512;
/** Of a message: whether it is packed, and its length. */
const HEAD_BYTES = 5;

/** grpc-js hands a request on when it is complete; only the stream shows what was received before. */
function streamOf(call: ServerInterceptingCallInterface): ServerHttp2Stream {
  return (call as unknown as { readonly stream: ServerHttp2Stream }).stream;
}
