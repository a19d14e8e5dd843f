// A minimal HTTP client over keep-alive sockets, because the load generator shares the cores with the server. Requests are
// prepared bytes; only status, header lines and body of a response are read.
import { connect } from 'node:net';

const END_OF_HEAD = Buffer.from('\r\n\r\n');

export class Connections {
  #idle = [];
  #all = new Set();

  /** @param url URL of the server */
  constructor(url) {
    const { hostname, port } = new URL(url);
    this.host = hostname;
    this.port = Number(port);
  }

  /**
   * Sends `parts`, the bytes of a complete request.
   * @returns status (0 if the connection broke), header lines in lower case, and body
   */
  send(parts) {
    const socket = this.#idle.pop() ?? this.#open();
    return new Promise((resolve) => {
      socket.exchange = { resolve, received: [], length: 0, head: null };
      socket.cork();
      for (const part of parts) socket.write(part);
      socket.uncork();
    });
  }

  close() {
    for (const socket of this.#all) socket.destroy();
  }

  #open() {
    const socket = connect({ host: this.host, port: this.port, noDelay: true });
    this.#all.add(socket);
    socket.on('data', (bytes) => this.#receive(socket, bytes));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#all.delete(socket);
      this.#idle = this.#idle.filter((other) => other !== socket);
      socket.exchange?.resolve({ status: 0, head: '', body: Buffer.alloc(0) });
    });
    return socket;
  }

  #receive(socket, bytes) {
    const { exchange: pending } = socket;
    if (!pending) return;
    pending.received.push(bytes);
    pending.length += bytes.length;
    if (!pending.head) {
      const all = Buffer.concat(pending.received);
      pending.received = [all];
      const end = all.indexOf(END_OF_HEAD);
      if (end < 0) return;
      pending.head = all.toString('latin1', 0, end).toLowerCase();
      pending.body = end + END_OF_HEAD.length;
      pending.total = pending.body + Number(/\r\ncontent-length: (\d+)/.exec(pending.head)?.[1] ?? 0);
    }
    if (pending.length < pending.total) return;
    socket.exchange = null;
    const { head } = pending;
    if (/\r\nconnection: close/.test(head)) socket.end();
    else this.#idle.push(socket);
    pending.resolve({
      status: Number(head.slice(9, 12)),
      head,
      body: Buffer.concat(pending.received).subarray(pending.body, pending.total),
    });
  }
}
