/**
 * Fuzzes model files, policies and audit logs in child processes under a watchdog. See CONTRIBUTING.md.
 *
 *   npm run fuzz -- --cases 1000000 --jobs 2
 *   npm run fuzz -- --case 4711                repeats one case and keeps its file
 *   npm run fuzz -- --lengths --cases 50000    only networks of open lengths, each at several lengths
 *   npm run fuzz -- --crafted                  the files of crafted.ts, each in a process of its own
 *   npm run fuzz -- --fault hang --cases 1     a deliberate fault, which must be found
 */
import { type ChildProcess, fork } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeCase } from './cases.js';
import type { ChildTask, Fault, Finding } from './child.js';
import { CRAFTED } from './crafted.js';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: 'Infinity' },
    from: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: '1' },
    memory: { type: 'string', default: '1024' },
    case: { type: 'string' },
    fault: { type: 'string' },
    lengths: { type: 'boolean', default: false },
    crafted: { type: 'boolean', default: false },
    cpu: { type: 'string' },
  },
});
const { lengths } = values;
const [seed, jobs, memory] = [Number(values.seed), Number(values.jobs), Number(values.memory)];
const fault = values.fault as Fault | undefined;
const { crafted } = values;
const names = Object.keys(CRAFTED);
const from = Number(values.case ?? values.from);
const last = crafted ? names.length : from + Number(values.cases);
const end = values.case ? from + 1 : last;
/** In milliseconds, as Date.now(). */
const deadline = Date.now() + Number(values.seconds) * 1000;

/** A case hangs if it takes more CPU time (the machine may be busy), or if it is asleep for this many polls. Open lengths take several sessions. */
const CPU_SECONDS = Number(values.cpu ?? (lengths ? 10 : 2));
const POLLS_ASLEEP = 50;
const POLL_MS = 100;
/** A child is replaced after this many cases: enough for a leak to show, but memory doesn't grow forever. */
const CASES_PER_CHILD = crafted ? 1 : 25_000;
const KEPT = 'build-fuzz/findings';

const folder = mkdtempSync(join(tmpdir(), 'residual-skip-fuzz-'));
const kinds = new Map<string, number>();
const running = new Set<ChildTask>();
let done = 0;
let found = 0;

function note({ number, problem }: Finding): void {
  found++;
  const kind = `${crafted ? `'${names[number]}': ` : ''}${problem.split('\n').slice(0, 2).join(' ')}`
    .replaceAll(/\d+/g, '0')
    .slice(0, 200);
  const before = kinds.get(kind) ?? 0;
  kinds.set(kind, before + 1);
  if (before > 0) return;
  const name = crafted ? `'${names[number]}'` : keep(number);
  console.log(`case ${number} (${name}): ${problem}`);
}

/** Writes the file of a case. @returns its path */
function keep(number: number): string {
  const { kind, bytes } = makeCase(seed, number, lengths);
  mkdirSync(KEPT, { recursive: true });
  const file = join(KEPT, `${seed}-${number}.${kind}`);
  writeFileSync(file, bytes);
  return file;
}

/** The current case of `task`; undefined before its first. */
function caseOf({ progress }: ChildTask): number | undefined {
  const text = existsSync(progress) ? readFileSync(progress, 'utf8') : '';
  return text === '' ? undefined : Number(text);
}

/** CPU seconds and MiB of a process, and whether all its threads are asleep. */
function usageOf(pid: number): { cpu: number; memory: number; asleep: boolean } {
  const statOf = (path: string) => readFileSync(`/proc/${path}/stat`, 'utf8').split(') ')[1]!.split(' ');
  const stat = statOf(`${pid}`);
  const threads = readdirSync(`/proc/${pid}/task`);
  return {
    cpu: (Number(stat[11]) + Number(stat[12])) / 100,
    memory: (Number(stat[21]) * 4) / 1024,
    asleep: threads.every((thread) => statOf(`${pid}/task/${thread}`)[0] === 'S'),
  };
}

/** Kills `child` when a case hangs or takes far too much memory; `verdict` is then the reason. */
function watch(child: ChildProcess, task: ChildTask): { stop(): void; verdict: string | undefined } {
  let last: number | undefined;
  let [cpuThen, asleep] = [0, 0];
  const watched = { stop: () => clearInterval(timer), verdict: undefined as string | undefined };
  const timer = setInterval(() => {
    try {
      const now = caseOf(task);
      const usage = usageOf(child.pid!);
      if (now !== last) [last, cpuThen, asleep] = [now, usage.cpu, 0];
      asleep = usage.asleep ? asleep + 1 : 0;
      const cpu = usage.cpu - cpuThen;
      if (last !== undefined && cpu > CPU_SECONDS)
        watched.verdict = `hang: ${cpu.toFixed(1)} s of the processor`;
      if (last !== undefined && asleep > POLLS_ASLEEP) watched.verdict = 'hang: all threads wait';
      if (usage.memory > 2 * memory) watched.verdict = `memory: ${Math.round(usage.memory)} MiB and growing`;
      if (watched.verdict) child.kill('SIGKILL');
    } catch {
      // The process hasn't started yet, or has ended.
    }
  }, POLL_MS);
  return watched;
}

/** Runs `task` in a child. @returns the next case to run: after the last one, or after the one that ended the child */
async function runChild(task: ChildTask): Promise<number> {
  rmSync(task.progress, { force: true });
  const child = fork(join(__dirname, 'child.js'), [JSON.stringify(task)], {
    execArgv: ['--max-old-space-size=512'],
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  let stderr = '';
  child.stderr!.on('data', (text) => {
    stderr = `${stderr}${text}`.slice(-2000);
  });
  let reported = -1;
  let ended = false;
  child.on('message', (message: Finding | 'done') => {
    if (message === 'done') {
      ended = true;
      return;
    }
    reported = message.number;
    note(message);
  });
  const watched = watch(child, task);
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on('close', (...how) => resolve(how));
  });
  watched.stop();
  const at = caseOf(task);
  if (at === undefined && !ended) throw new Error(`the child did not start: ${stderr}`);
  const last = at ?? task.from - task.step;
  if (!ended && (watched.verdict || reported !== last)) {
    note({ number: last, problem: watched.verdict ?? `crash: ${signal ?? `exit code ${code}`}\n${stderr}` });
  }
  const next = last + task.step;
  done += (next - task.from) / task.step;
  return next;
}

async function runJob(job: number): Promise<void> {
  const progress = join(folder, `progress-${job}`);
  for (let next = from + job; next < end && Date.now() < deadline; ) {
    const part = Math.min(end, next + CASES_PER_CHILD * jobs);
    const options = { seed, lengths, memory, fault, crafted };
    const task = { ...options, from: next, step: jobs, end: part, deadline, progress };
    running.add(task);
    next = await runChild(task);
    running.delete(task);
  }
}

async function main(): Promise<void> {
  if (values.case && !crafted) console.log(keep(from));
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const status = setInterval(() => {
    const begun = [...running].map((task) => ((caseOf(task) ?? task.from) - task.from) / task.step);
    console.log(
      `${begun.reduce((sum, count) => sum + count, done)} cases, ${found} findings of ${kinds.size} kinds, ${Math.round(seconds())} s`,
    );
  }, 60_000);
  await Promise.all(Array.from({ length: jobs }, (_, job) => runJob(job)));
  clearInterval(status);
  rmSync(folder, { recursive: true });
  for (const [kind, count] of kinds) console.log(`${count} times: ${kind}`);
  console.log(`${done} cases in ${seconds().toFixed(0)} s, ${(done / seconds()).toFixed(0)} a second`);
  console.log(`${done - found} passed, ${found} failed`);
  process.exit(found > 0 ? 1 : 0);
}

void main();
