// What an honest client and the server's memory feel of attacks with few bytes, each on a server of its own. Build first.
//   node bench/attacks.mjs [ATTACK...] [--seconds 10] [--rounds 4] [--json]
// The honest client sends a photograph at a time, alone and beside each attack in turn, so that other work of the machine slows both.
// A process of its own attacks from several clients, again and again. It has the lowest priority (nice 19): on the server's cores it would
// otherwise take the time that attackers elsewhere don't. Within: the share of the honest answers beside that came within 5 times
// the p99 of all those alone. Peak: the most memory that the server ever had. Live: the slowest answer of /v2/health/live.
import { fork, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { constants, setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { table } from './harness.mjs';
import { ATTACKERS, ATTACKS, MODEL, post, RAW } from './serving/attacks.mjs';

const ROOT = join(import.meta.dirname, '..');
/** Of the process that attacks: from each `begin` to the `pause` behind it, until it is told to end. */
async function attack(name, url, grpcAddress) {
  setPriority(constants.priority.PRIORITY_LOW);
  const statuses = {};
  const once = await ATTACKS[name]();
  const seen = (status) => {
    statuses[status] = (statuses[status] ?? 0) + 1;
  };
  let turns = 0;
  let begun = false;
  const repeat = async () => {
    for (; begun; turns++) await once(url, seen, grpcAddress);
    process.send({ statuses, turns });
  };
  process.on('message', (message) => {
    if (message === 'end') process.exit();
    begun = message === 'begin';
    if (begun) void repeat();
  });
  process.send('ready');
}

async function serve() {
  const folder = mkdtempSync(join(tmpdir(), 'attacks-'));
  const tokens = join(folder, 'tokens');
  writeFileSync(tokens, ['honest', ...ATTACKERS].join('\n'));
  const args = [`models/${MODEL}`, '--port', '0', '--grpc-port', '0', '--json', '--token-file', tokens];
  const child = spawn(process.execPath, ['dist/cli/main.js', 'serve', ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const line = await new Promise((resolve) => createInterface(child.stdout).once('line', resolve));
  const peakMiB = () =>
    Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))[1]) / 1024;
  const stop = async () => {
    child.kill('SIGTERM');
    rmSync(folder, { recursive: true });
    return ended;
  };
  return { ...JSON.parse(line), peakMiB, stop };
}

const CAT = readFileSync(join(ROOT, 'examples/images/cat-0000.jpg'));

/** Sends a photograph at a time until `over`; milliseconds of each answer, and how many weren't 200. */
async function honest(url, over) {
  const agent = new Agent({ keepAlive: true });
  const times = [];
  let failed = 0;
  while (!over()) {
    const start = performance.now();
    if ((await post(url, 'honest', CAT, RAW, agent).answered) !== 200) failed++;
    times.push(performance.now() - start);
    await sleep(5);
  }
  agent.destroy();
  return { times, failed };
}

/** The slowest answer of the probe until `over`, in milliseconds. */
async function probed(url, over) {
  let slowest = 0;
  while (!over()) {
    const start = performance.now();
    await (await fetch(`${url}/v2/health/live`)).json();
    slowest = Math.max(slowest, performance.now() - start);
    await sleep(20);
  }
  return slowest;
}

const after = (seconds) => {
  const end = performance.now() + 1000 * seconds;
  return () => performance.now() > end;
};
const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

/** Until what an attack has left behind is worked off. */
const SETTLE_MS = 1000;

async function measure(name, seconds, rounds) {
  const server = await serve();
  const { url, grpcAddress } = server;
  await honest(url, after(Math.min(3, seconds)));
  const attacker = fork(import.meta.filename, ['--attack', name, url, grpcAddress]);
  const told = () => new Promise((resolve) => attacker.once('message', resolve));
  await told();
  const alone = [];
  const beside = [];
  let done;
  for (let round = 0; round < rounds; round++) {
    alone.push(await honest(url, after(seconds / rounds)));
    attacker.send('begin');
    const over = after(seconds / rounds);
    const [seen, liveMs] = await Promise.all([honest(url, over), probed(url, over)]);
    beside.push({ ...seen, liveMs });
    const paused = told();
    attacker.send('pause');
    done = await paused;
    await sleep(SETTLE_MS);
  }
  attacker.send('end');
  const peakMiB = server.peakMiB();
  const code = await server.stop();
  const sorted = (turns) => turns.flatMap(({ times }) => times).sort((a, b) => a - b);
  const [usual, times] = [sorted(alone), sorted(beside)];
  const usualMs = quantile(usual, 0.99);
  const within = times.filter((ms) => ms <= 5 * usualMs).length / times.length;
  const [p50Ms, p95Ms] = [0.5, 0.95].map((q) => quantile(times, q));
  const failed = [...alone, ...beside].reduce((sum, turn) => sum + turn.failed, 0);
  const liveMs = Math.max(...beside.map((turn) => turn.liveMs));
  const counts = { answers: times.length, failed, ...done };
  return { attack: name, ...counts, peakMiB, code, liveMs, usualMs, p50Ms, p95Ms, within };
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '4' },
    json: { type: 'boolean', default: false },
    attack: { type: 'boolean', default: false },
  },
});
if (values.attack) await attack(...positionals);
else {
  const results = [];
  for (const name of positionals.length > 0 ? positionals : Object.keys(ATTACKS))
    results.push(await measure(name, Number(values.seconds), Number(values.rounds)));
  const ms = (value) => value.toFixed(1);
  const rows = results.map((one) => [
    one.attack,
    String(one.answers),
    String(one.failed),
    JSON.stringify(one.statuses),
    one.peakMiB.toFixed(0),
    ms(one.liveMs),
    ms(one.usualMs),
    `${ms(one.p50Ms)}, ${ms(one.p95Ms)}`,
    `${(100 * one.within).toFixed(1)} %`,
  ]);
  const heads = ['attack', 'honest answers', 'failed', "the attackers' answers", 'peak, MiB', 'live, ms'];
  const lines = table([...heads, 'p99 alone, ms', 'p50, p95 beside, ms', 'within'], rows);
  console.log(values.json ? JSON.stringify(results) : lines);
}
