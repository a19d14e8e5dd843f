import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'residual-skip/client';
import { describeBuilt } from '../helpers/dist.js';
import { startServe } from '../helpers/served.js';

const MODEL = 'cifar10-resnet14-exits';
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));
const PATH = `/v2/models/${MODEL}/infer`;
/** Of each half. RSKIP_VANISHING=100000 makes it a test of some minutes. */
const CLIENTS = Number(process.env.RSKIP_VANISHING ?? 1000) / 2;
const AT_A_TIME = 256;
const GROWTH_MIB = 64;

/** Sends bytes over a connection that then vanishes, in one of two ways. */
function vanish(port: number, bytes: Uint8Array, reset: boolean): Promise<void> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1', () => {
      // What was sent is under way when its client leaves.
      socket.write(bytes, () => (reset ? socket.resetAndDestroy() : socket.destroy()));
    });
    socket.on('error', () => {});
    socket.on('close', () => done());
  });
}

const HEAD = Buffer.from(
  `POST ${PATH} HTTP/1.1\r\nhost: localhost\r\nInference-Header-Content-Length: 0\r\ncontent-length: ${CAT.length}\r\n\r\n`,
);
const REST = [HEAD, Buffer.concat([HEAD, CAT.subarray(0, 300)]), Buffer.concat([HEAD, CAT])];

/** A frame of HTTP/2 (RFC 9113, 4.1). */
function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}
const [DATA, HEADERS, RST_STREAM, SETTINGS] = [0, 1, 3, 4];
const END_HEADERS = 4;
/** Literal fields that are never indexed (RFC 7541, 6.2.2). */
const FIELDS = Buffer.concat(
  Object.entries({
    ...{ ':method': 'POST', ':scheme': 'http', ':path': '/inference.GRPCInferenceService/ModelInfer' },
    ...{ ':authority': 'localhost', 'content-type': 'application/grpc', te: 'trailers' },
  }).map(([name, value]) =>
    Buffer.concat([
      ...[Buffer.of(0, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)],
    ]),
  ),
);
const OPENED = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(SETTINGS, 0, 0, Buffer.alloc(0)),
  frame(HEADERS, END_HEADERS, 1, FIELDS),
]);
/** The beginning of a message that is announced with 1 MB. */
const HALF = Buffer.concat([
  OPENED,
  frame(DATA, 0, 1, Buffer.concat([Buffer.of(0, 0, 16, 0, 0), Buffer.alloc(5000)])),
]);
/** A message that never comes, half of one, and one whose call is cancelled. */
const GRPC = [OPENED, HALF, Buffer.concat([HALF, frame(RST_STREAM, 0, 1, Buffer.of(0, 0, 0, 8))])];

describeBuilt('clients that vanish', () => {
  test('leave no descriptor and no memory behind, and an honest client has its answers', async () => {
    const served = await startServe([`models/${MODEL}`]);
    const ports = [Number(new URL(served.url).port), Number(served.grpcAddress!.split(':')[1])] as const;
    const descriptors = () => readdirSync(`/proc/${served.pid}/fd`).length;
    const resident = () =>
      Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${served.pid}/status`, 'utf8'))![1]) / 1024;
    const client = new Client(served.url);
    const asks = async () =>
      expect((await client.classify(MODEL, [CAT]))[0]![0]).toMatchObject({ label: 'cat' });
    await asks();
    const before = descriptors();
    const half = async () => {
      let left = CLIENTS;
      const leave = async () => {
        for (let turn = left--; turn > 0; turn = left--) {
          const [port, kinds] = turn % 4 < 2 ? [ports[0], REST] : [ports[1], GRPC];
          await vanish(port, kinds[turn % 3]!, turn % 2 === 1);
        }
      };
      const vanishing = Promise.all(Array.from({ length: AT_A_TIME }, leave));
      // An honest client now and then, for whom the others needn't wait.
      for (; left > 0; await sleep(50)) await asks();
      await vanishing;
      // The server learns of it after them; the one of `asks` stays.
      while (descriptors() > before) await sleep(50);
      await asks();
      return resident();
    };
    const [first, second] = [await half(), await half()];
    console.log(
      `${2 * CLIENTS} vanished: ${before} descriptors before, ${descriptors()} after; ${first.toFixed(0)} and ${second.toFixed(0)} MiB`,
    );
    expect(second - first).toBeLessThan(GROWTH_MIB);
    expect((await served.stop()).code).toBe(0);
  }, 100_000_000);
});
