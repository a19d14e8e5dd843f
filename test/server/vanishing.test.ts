import { readdirSync, readFileSync } from 'node:fs';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'residual-skip/client';
import { describeBuilt } from '../helpers/dist.js';
import { startServe } from '../helpers/served.js';

const MODEL = 'cifar10-resnet14-exits';
const CAT = readFileSync(resolve('examples/images/cat-0000.jpg'));
const PATH = `/v2/models/${MODEL}/infer`;
/** Of each half. RSKIP_VANISHING=100000 makes it a test of an hour. */
const CLIENTS = Number(process.env.RSKIP_VANISHING ?? 1000) / 2;
const AT_A_TIME = 16;
const GROWTH_MIB = 64;

/** Sends bytes over a connection that then vanishes, in one of three ways. */
function vanishRest(port: number, turn: number): Promise<void> {
  const head = `POST ${PATH} HTTP/1.1\r\nhost: localhost\r\nInference-Header-Content-Length: 0\r\ncontent-length: ${CAT.length}\r\n\r\n`;
  const sent = [
    head,
    Buffer.concat([Buffer.from(head), CAT.subarray(0, 300)]),
    Buffer.concat([Buffer.from(head), CAT]),
  ];
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1', () => {
      // The whole request is under way when its client leaves.
      socket.write(sent[turn % 3]!, () => (turn % 2 === 0 ? socket.destroy() : socket.resetAndDestroy()));
    });
    socket.on('error', () => {});
    socket.on('close', () => done());
  });
}

/** The same over gRPC: a message that never comes, half of one, and a whole stream that is cancelled. */
function vanishGrpc(port: number, turn: number): Promise<void> {
  return new Promise((done) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    session.on('error', () => {});
    session.on('close', () => done());
    const call = session.request({
      ':method': 'POST',
      ':path': '/inference.GRPCInferenceService/ModelInfer',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    call.on('error', () => {});
    // A message announced with 1 MB.
    const half = Buffer.concat([Buffer.of(0, 0, 16, 0, 0), Buffer.alloc(5000)]);
    session.on('connect', () => {
      if (turn % 3 > 0) call.write(half);
      if (turn % 3 === 2) call.close(constants.NGHTTP2_CANCEL);
      setImmediate(() => session.destroy());
    });
  });
}

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
      const vanish = async () => {
        for (let turn = left--; turn > 0; turn = left--)
          await (turn % 4 < 2 ? vanishRest(ports[0], turn) : vanishGrpc(ports[1], turn));
      };
      const vanishing = Promise.all(Array.from({ length: AT_A_TIME }, vanish));
      while (left > 0) await asks();
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
