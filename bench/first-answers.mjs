// CPU time from the start of a process to its first answer, and the most memory that it took, beside onnxruntime-node. Build first.
//   node bench/first-answers.mjs MODEL... [--rounds N] [--tokens N] [--package FOLDER]... [--cache]
// Each FOLDER holds a package, such as the published one; without any, it is this checkout, whose modules aren't bundled.
// With --cache, the last package also runs with what an earlier process has kept in a folder. Processes take turns, each on one thread; prints lower quartiles. RESIDUAL_SKIP_ONNXRUNTIME names a folder with onnxruntime-node.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const PEER = 'onnxruntime-node';
const STAGES = ['start', 'import', 'create', 'run'];

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** A wave for images, ones for integers; other symbolic dimensions than the batch are tokens, or 224 pixels. */
function feedsOf({ inputMetadata }, Tensor, tokens) {
  const feeds = inputMetadata.map(({ name, type, shape }) => {
    const open = type === 'float32' ? 224 : tokens;
    const dims = shape.map((dim, axis) => (typeof dim === 'number' && dim > 0 ? dim : axis === 0 ? 1 : open));
    const length = dims.reduce((size, dim) => size * dim, 1);
    const data =
      type === 'float32'
        ? Float32Array.from({ length }, (_, i) => Math.sin(i))
        : new BigInt64Array(length).fill(1n);
    return [name, new Tensor(type, data, dims)];
  });
  return Object.fromEntries(feeds);
}

/** What one process measures: milliseconds up to the end of each stage, and MiB. */
async function measure(folder, model, tokens, cache) {
  const ends = [cpu()];
  const load = createRequire(process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? import.meta.url);
  const runtime = folder === PEER ? load(PEER) : load(resolve(folder));
  ends.push(cpu());
  const options =
    folder === PEER
      ? { intraOpNumThreads: 1, interOpNumThreads: 1 }
      : { threads: 1, ...(cache && { cache }) };
  const session = await runtime.InferenceSession.create(resolve(model), options);
  ends.push(cpu());
  await session.run(feedsOf(session, runtime.Tensor, tokens));
  ends.push(cpu());
  return [...ends.map((end, i) => end - (ends[i - 1] ?? 0)), process.resourceUsage().maxRSS / 1024];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '11' },
    tokens: { type: 'string', default: '16' },
    package: { type: 'string', multiple: true, default: [join(import.meta.dirname, '..')] },
    cache: { type: 'boolean', default: false },
    child: { type: 'string' },
    kept: { type: 'string' },
  },
});
if (values.child !== undefined) {
  console.log(
    JSON.stringify(await measure(values.child, positionals[0], Number(values.tokens), values.kept)),
  );
  process.exit();
}

const lowerQuartile = (numbers) => numbers.toSorted((a, b) => a - b)[(numbers.length - 1) >> 2];
const kept = values.cache ? mkdtempSync(join(tmpdir(), 'cache-')) : undefined;
const packages = values.package.map((folder) => ({ folder, args: [] }));
const cached = kept ? [{ folder: values.package.at(-1), args: ['--kept', kept] }] : [];
const nameOf = ({ folder, args }) => (args.length > 0 ? `${folder} with a cache` : folder);
const answer = (model, { folder, args }) => {
  const given = [
    fileURLToPath(import.meta.url),
    model,
    '--tokens',
    values.tokens,
    '--child',
    folder,
    ...args,
  ];
  return JSON.parse(execFileSync(process.execPath, given, { encoding: 'utf8' }));
};
for (const model of positionals) {
  // onnxruntime-node opens no folders, such as those of ladders.
  const peers = statSync(model).isDirectory() ? [] : [{ folder: PEER, args: [] }];
  const contenders = [...packages, ...peers, ...cached];
  const found = contenders.map(() => []);
  if (kept) answer(model, contenders.at(-1));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (let k = 0; k < contenders.length; k++) {
      const at = round % 2 === 0 ? k : contenders.length - 1 - k;
      found[at].push(answer(model, contenders[at]));
    }
  }
  for (const [i, rows] of found.entries()) {
    const quartiles = rows[0].map((_, column) => lowerQuartile(rows.map((row) => row[column])));
    const whole = lowerQuartile(rows.map((row) => row.slice(0, -1).reduce((sum, ms) => sum + ms)));
    const stages = STAGES.map((stage, k) => `${stage} ${quartiles[k].toFixed(0)}`).join(', ');
    console.log(
      `${model}, ${nameOf(contenders[i])}: ${whole.toFixed(0)} ms (${stages}), ${quartiles.at(-1).toFixed(0)} MiB`,
    );
  }
}
if (kept) rmSync(kept, { recursive: true });
