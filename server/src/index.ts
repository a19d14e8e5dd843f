export * from './bulk/index.js';
export { ServerError, type ServerErrorCode } from './errors.js';
export type { ServerOptions } from './options.js';
export { createServer, type RunningServer } from './server.js';
