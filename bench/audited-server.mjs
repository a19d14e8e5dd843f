// An audited server under load that is killed again and again: what its log has lost, whether it replays, and how its files rotate.
//   node bench/audited-server.mjs [--requests 100000] [--kills 5]
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { InferenceSession, readAudit, replayAudit, storedInputs } from '../dist/index.js';

const { values } = parseArgs({
  options: { requests: { type: 'string', default: '100000' }, kills: { type: 'string', default: '5' } },
});
const [requests, kills] = [Number(values.requests), Number(values.kills)];
const MODEL = 'cifar10-resnet14-exits';
const CLIENTS = 8;

const folder = mkdtempSync(join(tmpdir(), 'audited-'));
const log = join(folder, MODEL, '1');
const images = readdirSync('examples/images').map((name) => readFileSync(join('examples/images', name)));

async function start() {
  const args = [`models/${MODEL}`, '--port', '0', '--no-grpc-port', '--json'];
  const audit = [
    '--audit',
    folder,
    '--audit-inputs',
    'store',
    '--audit-rotate',
    '8MB',
    '--audit-keep',
    '30d',
  ];
  const child = spawn(process.execPath, ['dist/cli/main.js', 'serve', ...args, ...audit], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise((resolve) => createInterface(child.stdout).once('line', resolve));
  return { child, url: new URL(`/v2/models/${MODEL}/infer`, JSON.parse(line).url) };
}

/** Sends an image raw; false where there is no answer. */
function send(url, agent, id) {
  const body = images[id % images.length];
  const headers = {
    'Inference-Header-Content-Length': 0,
    'x-request-id': `r-${id}`,
    'content-length': body.length,
  };
  return new Promise((resolve) => {
    const sent = request(url, { method: 'POST', agent, headers }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode === 200));
      answer.on('error', () => resolve(false));
    });
    sent.on('error', () => resolve(false));
    sent.end(body);
  });
}

const answeredAt = new Map();
let next = 0;
/** When each server was killed, and the ids of its answers in their order. */
const lives = [];
for (let life = 0; life <= kills; life++) {
  const { child, url } = await start();
  const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS });
  const end = Math.round((requests * (life + 1)) / (kills + 1));
  const answers = [];
  let up = true;
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      while (up && answers.length + (lives.at(-1)?.total ?? 0) < end) {
        const id = next++;
        if (!(await send(url, agent, id))) continue;
        answeredAt.set(id, performance.now());
        answers.push(id);
      }
      if (up && life < kills) child.kill('SIGKILL');
      up = false;
    }),
  );
  const at = performance.now();
  if (life === kills) child.kill('SIGTERM');
  await new Promise((resolve) => child.once('close', resolve));
  agent.destroy();
  lives.push({ answers, at, total: answers.length + (lives.at(-1)?.total ?? 0) });
}

const { entries, problems } = await readAudit(log);
const recorded = new Set(entries.map(({ record }) => Number(record.request.slice(2))));
for (const [life, { answers, at }] of lives.entries()) {
  const lost = answers.filter((id) => !recorded.has(id));
  const oldest = Math.max(0, ...lost.map((id) => at - answeredAt.get(id)));
  console.log(
    `life ${life + 1}: ${answers.length} answers, ${lost.length} of them not recorded, all answered in its last ${oldest.toFixed(0)} ms`,
  );
}
console.log(
  `${entries.length} items in ${new Set(entries.map(({ file }) => file)).size} files, twice recorded: ${entries.length - recorded.size}`,
);
for (const { file, kind, message } of problems) console.log(`${file}: ${kind}: ${message}`);

const session = await InferenceSession.create(`models/${MODEL}`);
const hashes = new Set(entries.map(({ record }) => record.input));
const report = await replayAudit(entries, storedInputs(log, hashes), session);
const { replayed, identical, missing } = report;
console.log(
  `replayed from ${hashes.size} stored inputs: ${replayed}, identical ${identical}, missing ${missing}`,
);
await session.release();
rmSync(folder, { recursive: true });
