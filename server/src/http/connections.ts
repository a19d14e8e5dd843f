import type { Server, Socket } from 'node:net';
import { addressOf } from '../auth.js';

/** What is under way on a connection: `isReceived` says whether the client has sent all of it. */
interface Exchange {
  readonly isReceived: () => boolean;
}

/** Requests that a client may send together, without waiting for answers: Node.js hands over all that it has read, in one turn. */
const MAX_TOGETHER = 64;

interface Connection {
  readonly socket: Socket;
  readonly client: string;
  readonly exchanges: Set<Exchange>;
  /** When the last of them ended, or it began. */
  since: number;
  /** How many bytes were read when the last request came, and how many came with it. */
  bytesRead: number;
  together: number;
}

/**
 * The connections of a server. One beyond the limit takes the place of another on which no request waits for its answer: otherwise a client that
 * opens connections and sends nothing would keep out all others. It is the one that has been so for longest, of the address with most.
 */
export class Connections {
  readonly #most: number;
  /** By the client's address and port. */
  readonly #known = new Map<string, Connection>();

  constructor(most: number) {
    this.#most = most;
  }

  /** Watches the connections of a server from now on. */
  watch(server: Server): void {
    server.on('connection', (socket: Socket) => {
      const { remoteAddress, remotePort } = socket;
      if (remoteAddress === undefined || !this.#makeRoom()) {
        socket.destroy();
        return;
      }
      const key = keyOf(socket);
      const client = addressOf(remoteAddress);
      const since = performance.now();
      this.#known.set(key, { socket, client, exchanges: new Set(), since, bytesRead: 0, together: 0 });
      socket.once('close', () => this.#known.delete(`${remoteAddress} ${remotePort}`));
    });
  }

  /** Whether so many requests came together on a connection that it is closed, and the rest of them is left unanswered. */
  isFull(socket: Socket): boolean {
    if (socket.destroyed) return true;
    const own = this.#known.get(keyOf(socket));
    if (!own) return false;
    const { bytesRead } = socket;
    own.together = own.bytesRead === bytesRead ? own.together + 1 : 1;
    own.bytesRead = bytesRead;
    if (own.together <= MAX_TOGETHER) return false;
    socket.destroy();
    return true;
  }

  /** Notes a request on a connection, encrypted or not, until the returned function is called. */
  begin(socket: Pick<Socket, 'remoteAddress' | 'remotePort'>, isReceived: () => boolean): () => void {
    const own = this.#known.get(keyOf(socket));
    if (!own) return () => {};
    const exchange = { isReceived };
    own.exchanges.add(exchange);
    return () => {
      own.exchanges.delete(exchange);
      own.since = performance.now();
    };
  }

  /** Whether no request is under way on a connection. */
  isSilent(socket: Pick<Socket, 'remoteAddress' | 'remotePort'>): boolean {
    return !this.#known.get(keyOf(socket))?.exchanges.size;
  }

  /** Closes those that have no request under way. */
  closeSilent(): void {
    for (const { socket, exchanges } of this.#known.values()) if (exchanges.size === 0) socket.destroy();
  }

  closeAll(): void {
    for (const { socket } of this.#known.values()) socket.destroy();
  }

  /** False if there is none. */
  #makeRoom(): boolean {
    if (this.#known.size < this.#most) return true;
    const counts = new Map<string, number>();
    for (const { client } of this.#known.values()) counts.set(client, (counts.get(client) ?? 0) + 1);
    let found: [string, Connection] | undefined;
    for (const one of this.#known) if (waits(one[1]) && (!found || isBefore(one[1], found[1]))) found = one;
    if (!found) return false;
    found[1].socket.destroy();
    return this.#known.delete(found[0]);

    function isBefore(one: Connection, other: Connection): boolean {
      const [own, others] = [counts.get(one.client)!, counts.get(other.client)!];
      return own === others ? one.since < other.since : own > others;
    }
  }
}

function keyOf({ remoteAddress, remotePort }: Pick<Socket, 'remoteAddress' | 'remotePort'>): string {
  return `${remoteAddress} ${remotePort}`;
}

/** Whether a connection waits for its client, rather than the client for an answer. */
function waits({ exchanges }: Connection): boolean {
  for (const { isReceived } of exchanges) if (isReceived()) return false;
  return true;
}
