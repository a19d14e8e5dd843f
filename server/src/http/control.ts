/**
 * The control plane on a port of its own, on loopback: loading and unloading of models, metrics and the live page are then there alone.
 * Whoever is on the machine may use it, without a token.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { ServerError } from '../errors.js';

const HOST = '127.0.0.1';

export class ControlPlane {
  #server: Server | undefined;
  #port: number | undefined;

  /** @param apart whether it has a port of its own */
  constructor(readonly apart: boolean) {}

  /** Whether a request came to that port. */
  has({ socket }: IncomingMessage): boolean {
    return this.#port !== undefined && socket.localPort === this.#port;
  }

  /** Throws PERMISSION_DENIED for a request that is at the wrong port. */
  check(request: IncomingMessage | undefined, what: string): void {
    if (!this.apart || (request && this.has(request))) return;
    throw new ServerError(
      'PERMISSION_DENIED',
      `${what}: it is at the control port alone, on the machine of the server`,
    );
  }

  /** Hands the requests of the port to the server. @returns its URL */
  async listen(app: FastifyInstance, port: number): Promise<string> {
    const server = createHttpServer((request, response) => app.server.emit('request', request, response));
    this.#server = server;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, HOST, resolve));
    this.#port = (server.address() as AddressInfo).port;
    return `http://${HOST}:${this.#port}`;
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  }
}
