// Tests that nothing is lost when processes are killed: jobs on a Valkey server while workers, collector, enqueuer and the
// server itself are killed, and requests through nginx while one replica is killed and another drains. Prints the figures,
// and exits with 1 unless every job and request has exactly one correct answer.
//
//   node bench/faults.mjs                         20,000 jobs, 50 kills of workers, two restarts of the server
//   node bench/faults.mjs --short                 a tenth of that
//   node bench/faults.mjs --appendfsync everysec  with a weaker setting than appendfsync always
//
// Build first. Needs valkey-server, and nginx for the second part.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openQueue } from 'residual-skip-server';
import sharp from 'sharp';
import { Client } from '../dist/client/index.js';
import { ImageClassifier } from '../dist/index.js';

const root = join(import.meta.dirname, '..');
const CLI = join(root, 'dist', 'cli', 'main.js');
const MODEL = join(root, 'demo');
const { values: flags } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    appendfsync: { type: 'string', default: 'always' },
  },
});
const JOBS = flags.short ? 2000 : 20_000;
const KILLS = flags.short ? 5 : 50;
const REQUESTS = flags.short ? 1500 : 15_000;
const WORKERS = 2;
const folder = mkdtempSync(join(tmpdir(), 'residual-skip-faults-'));
const running = new Set();
const say = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);

function start(command, args, stdio = ['ignore', 'ignore', 'inherit']) {
  const child = spawn(command, args, { stdio });
  running.add(child);
  child.ended = once(child, 'exit').finally(() => running.delete(child));
  return child;
}

const command = (...args) =>
  start(process.execPath, [CLI, ...args, '--json'], ['ignore', 'ignore', 'ignore']);

async function kill(child, signal = 'SIGKILL') {
  child.kill(signal);
  await child.ended;
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

/** Digits, each rotated a little, so that the answers differ. */
async function makeImages(count) {
  const digits = [3, 5, 7].map((digit) => readFileSync(join(MODEL, `digit-${digit}.png`)));
  return Promise.all(
    Array.from({ length: count }, (_, i) =>
      sharp(digits[i % 3])
        .rotate(i - count / 2, { background: '#000' })
        .resize(28, 28, { fit: 'fill' })
        .png()
        .toBuffer(),
    ),
  );
}

/** Part 1: `JOBS` jobs, each with one of the images and a unique name. */
async function killWorkers(images) {
  const port = await freePort();
  const startValkey = async () => {
    const args = ['--port', port, '--bind', '127.0.0.1', '--dir', folder, '--save', ''];
    const log = ['--appendonly', 'yes', '--appendfsync', flags.appendfsync, '--loglevel', 'warning'];
    return start('valkey-server', [...args, ...log].map(String));
  };
  let valkey = await startValkey();
  const url = `redis://127.0.0.1:${port}`;
  const list = join(folder, 'jobs.ndjson');
  const urls = images.map((image) => `data:image/png;base64,${image.toString('base64')}`);
  const jobs = Array.from({ length: JOBS }, (_, i) => ({ image: urls[i % urls.length], name: `job ${i}` }));
  writeFileSync(list, jobs.map((job) => `${JSON.stringify(job)}\n`).join(''));

  const results = join(folder, 'results.ndjson');
  const queue = await openQueue(url, 'residual-skip');
  const startWorker = () => command('work', MODEL, '--queue', url, '--threads', '1', '--concurrency', '8');
  const startCollector = () => command('queue', 'results', '--queue', url, '-o', results, '--follow');
  const startEnqueuer = () => command('enqueue', list, '--queue', url, '--max-waiting', `${JOBS / 4}`);
  let enqueuer = startEnqueuer();
  let collector = startCollector();
  const workers = Array.from({ length: WORKERS }, startWorker);

  const killed = { workers: 0, jobsUnderWay: 0, valkey: 0, collector: 0, enqueuer: 0 };
  const due = (done, kills) => (done + 1) / (kills + 1);
  const began = performance.now();
  for (;;) {
    await sleep(20);
    const { waiting, running: active, answered, failed } = await queue.counts();
    const share = (answered + failed) / JOBS;
    if (killed.workers < KILLS && share > due(killed.workers, KILLS)) {
      const at = killed.workers % WORKERS;
      await kill(workers[at]);
      workers[at] = startWorker();
      killed.workers++;
      killed.jobsUnderWay += active;
      say(
        `${answered} of ${JOBS} answered, ${active} under way, ${waiting} waiting; worker ${killed.workers} killed`,
      );
    }
    if (killed.valkey < 2 && share > due(killed.valkey, 2)) {
      await kill(valkey);
      await sleep(500);
      valkey = await startValkey();
      killed.valkey++;
      say('the server was killed and started');
    }
    if (killed.collector < 3 && share > due(killed.collector, 3)) {
      await kill(collector);
      killed.collector++;
    }
    if (killed.enqueuer < 1 && share > 0.2) {
      await kill(enqueuer);
      enqueuer = startEnqueuer();
      killed.enqueuer++;
    }
    // The collector exits whenever the queue is briefly empty.
    if (!running.has(collector)) collector = startCollector();
    if (waiting + active === 0 && !running.has(enqueuer)) break;
  }
  const seconds = (performance.now() - began) / 1000;
  const counts = await queue.counts();
  await collector.ended;
  await command('queue', 'results', '--queue', url, '-o', results).ended;
  await Promise.all(workers.map((worker) => kill(worker, 'SIGTERM')));
  const letters = [];
  for await (const letter of queue.failed()) letters.push(letter);
  await queue.close();
  await kill(valkey, 'SIGTERM');
  return { jobs: JOBS, seconds: Math.round(seconds), killed, counts, letters, rows: rowsOf(results) };
}

function rowsOf(file) {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** Compares answers with those of an undisturbed process. */
async function verify(rows, images) {
  const classifier = await ImageClassifier.from(MODEL);
  const expected = await classifier.classify(images, { topK: 1 });
  await classifier.release();
  const seen = new Map();
  let wrong = 0;
  for (const { name, label, probability } of rows) {
    seen.set(name, (seen.get(name) ?? 0) + 1);
    const right = expected[Number(name.split(' ')[1]) % images.length];
    if (label !== right.label || probability !== right.probability) wrong++;
  }
  const twice = [...seen.values()].filter((times) => times > 1).length;
  return { answered: rows.length, lost: JOBS - seen.size, twice, wrong };
}

/** Part 2: clients send requests through nginx while one replica is killed and restarted, and another drains. */
async function killReplica(images) {
  const nginx = ['nginx', '/usr/sbin/nginx'].find((name) => spawnSync(name, ['-v']).error === undefined);
  if (nginx === undefined) return { skipped: "nginx isn't installed" };
  const ports = await Promise.all(Array.from({ length: 5 }, freePort));
  const [front, grpc, ...rest] = ports;
  let text = readFileSync(join(root, 'deploy', 'nginx.conf'), 'utf8');
  for (const [from, to] of [[8080, front], [8081, grpc], ...rest.map((port, i) => [8000 + 10 * i, port])]) {
    text = text
      .replace(new RegExp(`\\b${from};`), `${to};`)
      .replace(`127.0.0.1:${from} `, `127.0.0.1:${to} `);
  }
  writeFileSync(join(folder, 'nginx.conf'), text);
  const startReplica = (port) =>
    command('serve', MODEL, '--port', `${port}`, '--no-grpc-port', '--threads', '1');
  const replicas = rest.map(startReplica);
  const ready = async (port) => {
    while (!(await new Client(`http://127.0.0.1:${port}`).ready())) await sleep(50);
  };
  await Promise.all(rest.map(ready));
  const balancer = start(
    nginx,
    ['-p', folder, '-c', 'nginx.conf', '-g', 'daemon off;'],
    ['ignore', 'ignore', 'ignore'],
  );
  await ready(front);

  const classify = async (port, image) =>
    JSON.stringify(await new Client(`http://127.0.0.1:${port}`).classify('demo', [image]));
  const expected = [];
  for (const image of images) expected.push(await classify(rest[2], image));
  const tally = { requests: 0, right: 0, wrong: 0, failed: {} };
  const client = async () => {
    while (tally.requests < REQUESTS) {
      const i = tally.requests++ % images.length;
      try {
        if ((await classify(front, images[i])) === expected[i]) tally.right++;
        else tally.wrong++;
      } catch (error) {
        tally.failed[error.message] = (tally.failed[error.message] ?? 0) + 1;
      }
    }
  };
  const faults = async () => {
    const at = async (share) => {
      while (tally.requests < share * REQUESTS) await sleep(5);
    };
    await at(0.2);
    await kill(replicas[0]);
    await at(0.4);
    replicas[0] = startReplica(rest[0]);
    await ready(rest[0]);
    await at(0.7);
    await kill(replicas[1], 'SIGTERM');
  };
  await Promise.all([faults(), ...Array.from({ length: 8 }, client)]);
  await Promise.all([kill(replicas[0], 'SIGTERM'), kill(replicas[2], 'SIGTERM'), kill(balancer, 'SIGQUIT')]);
  return { ...tally, killed: 1, drained: 1 };
}

try {
  const images = await makeImages(60);
  const { rows, letters, ...queue } = await killWorkers(images);
  const verdict = { ...(await verify(rows, images)), givenUp: letters.length };
  const balancer = await killReplica(images);
  console.log(
    JSON.stringify({ appendfsync: flags.appendfsync, queue: { ...queue, ...verdict }, balancer }, null, 2),
  );
  const bad = verdict.lost + verdict.twice + verdict.wrong + verdict.givenUp;
  const unanswered = balancer.skipped ? 0 : balancer.requests - balancer.right;
  process.exitCode = bad + unanswered === 0 ? 0 : 1;
} finally {
  for (const child of running) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
