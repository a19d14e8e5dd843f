import { status as Grpc } from '@grpc/grpc-js';
import { ResidualSkipError } from 'residual-skip';

/** Error codes of the server, with their REST and gRPC status. */
const CODES = {
  /** The request contradicts the protocol or the model. */
  INVALID_ARGUMENT: { http: 400, grpc: Grpc.INVALID_ARGUMENT },
  /** No valid token was sent. */
  UNAUTHENTICATED: { http: 401, grpc: Grpc.UNAUTHENTICATED },
  /** The token, or the page, may not do this. */
  PERMISSION_DENIED: { http: 403, grpc: Grpc.PERMISSION_DENIED },
  /** No such model, version or path. */
  NOT_FOUND: { http: 404, grpc: Grpc.NOT_FOUND },
  /** The client disconnected or cancelled. */
  CANCELLED: { http: 499, grpc: Grpc.CANCELLED },
  /** The body exceeds the server's limit. */
  TOO_LARGE: { http: 413, grpc: Grpc.RESOURCE_EXHAUSTED },
  /** The queue is full: retry after `retryAfter` seconds. */
  BUSY: { http: 429, grpc: Grpc.RESOURCE_EXHAUSTED },
  /** The server is draining, or the model is not loaded. */
  UNAVAILABLE: { http: 503, grpc: Grpc.UNAVAILABLE },
  /** The request waited longer than its timeout. */
  TIMEOUT: { http: 504, grpc: Grpc.DEADLINE_EXCEEDED },
  /** The server doesn't support this. */
  UNSUPPORTED: { http: 501, grpc: Grpc.UNIMPLEMENTED },
  /** A bug in the server. */
  INTERNAL: { http: 500, grpc: Grpc.INTERNAL },
} as const;

export type ServerErrorCode = keyof typeof CODES;

/** A message may name what a client sent; headers, in which gRPC sends it, take neither more nor half a surrogate pair. */
const LONGEST_MESSAGE = 1000;

export class ServerError extends Error {
  override readonly name = 'ServerError';

  constructor(
    readonly code: ServerErrorCode,
    message: string,
    /** `retryAfter`: seconds after which the client may retry. */
    readonly options: { readonly retryAfter?: number; readonly cause?: unknown } = {},
  ) {
    super(message.slice(0, LONGEST_MESSAGE).replace(/\p{Surrogate}/gu, '\ufffd'), { cause: options.cause });
  }

  get http(): number {
    return CODES[this.code].http;
  }

  get grpc(): Grpc {
    return CODES[this.code].grpc;
  }
}

/** Errors of the package that are the client's fault; all others are the server's. */
const CAUSED_BY_REQUESTS: Readonly<Record<string, ServerErrorCode>> = {
  INVALID_ARGUMENT: 'INVALID_ARGUMENT',
  INVALID_SHAPE: 'INVALID_ARGUMENT',
  INVALID_DTYPE: 'INVALID_ARGUMENT',
  INVALID_DATA: 'INVALID_ARGUMENT',
  INVALID_POLICY: 'INVALID_ARGUMENT',
  POLICY_MISMATCH: 'INVALID_ARGUMENT',
  ABORTED: 'CANCELLED',
  SESSION_RELEASED: 'UNAVAILABLE',
  OUT_OF_MEMORY: 'UNAVAILABLE',
};

/** Converts any error to a ServerError. */
export function asServerError(error: unknown): ServerError {
  if (error instanceof ServerError) return error;
  if (error instanceof ResidualSkipError) {
    return new ServerError(CAUSED_BY_REQUESTS[error.code] ?? 'INTERNAL', `${error.message} [${error.code}]`, {
      cause: error,
    });
  }
  return new ServerError('INTERNAL', 'server: it failed; its log has the details', { cause: error });
}
