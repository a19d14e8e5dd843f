// Networks that others publish, beside onnxruntime-node: published.json has the packages, and the shapes that files leave open.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { InferenceSession, Tensor } from '../dist/index.js';
import { inRow, inRowSync, median, ratioOf, table, takeTurns } from './harness.mjs';

const { packages, leftOut, inputs, tokens, side } = JSON.parse(
  readFileSync(new URL('published.json', import.meta.url), 'utf8'),
);

/** A network is slow from here on. */
const SLOW = 0.9;

const matches = (pattern, text) => new RegExp(pattern).test(text);

function filesIn(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const networks = entries.filter(({ name }) => name.endsWith('.onnx'));
  const paths = networks.map((entry) => join(entry.parentPath, entry.name));
  // Links to files count as files; one that leads nowhere is named among those that can't be measured.
  const files = paths.filter((path) => !statSync(path, { throwIfNoEntry: false })?.isDirectory());
  return files.filter((file) => !matches(leftOut, file));
}

/** Waves for floats, ones for whole numbers, or what published.json says. */
function feedsOf({ inputMetadata }, file) {
  return inputMetadata.map(({ name, type, shape }) => {
    const given = inputs.find((each) => matches(each.file, file) && matches(`^(${each.name})$`, name)) ?? {};
    const open = shape.length === 4 && type === 'float32' ? side : tokens;
    const dims =
      given.dims ?? shape.map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? 1 : open));
    const size = dims.reduce((product, length) => product * length, 1);
    const values = Array.from({ length: size }, (_, i) => (type.startsWith('float') ? Math.sin(i) : 1));
    return { name, tensor: new Tensor(type, given.values ?? values, dims) };
  });
}

/** Largest difference of an element, as a share of the largest element of that output; NaN where only one side has a number. */
function differenceOf(own, others) {
  const shares = Object.entries(own).map(([name, { data }]) => {
    const other = others[name].data;
    let [most, largest] = [0, 0];
    for (let i = 0; i < data.length; i++) {
      const [a, b] = [Number(data[i]), Number(other[i])];
      largest = Math.max(largest, Math.abs(b));
      if (!Object.is(a, b)) most = Math.max(most, Math.abs(a - b));
    }
    return most === 0 ? 0 : most / largest;
  });
  return Math.max(...shares);
}

async function ratioOn(file, { rounds, threads, isa }, ort) {
  const own = await InferenceSession.create(file, { threads, policy: 'full', isa });
  const peer = await ort.InferenceSession.create(file, { intraOpNumThreads: threads, interOpNumThreads: 1 });
  try {
    const feeds = feedsOf(own, file);
    const ours = Object.fromEntries(feeds.map(({ name, tensor }) => [name, tensor]));
    const theirs = Object.fromEntries(
      feeds.map(({ name, tensor: { type, data, dims } }) => [name, new ort.Tensor(type, data, dims)]),
    );
    const difference = differenceOf(own.runSync(ours), await peer.run(theirs));
    const variants = [{ runs: inRowSync(() => own.runSync(ours)) }, { runs: inRow(() => peer.run(theirs)) }];
    await takeTurns(variants, { rounds, turnMs: 30 });
    const [ms, peerMs] = variants.map(({ turns }) => median(turns.map(({ cpuMs }) => cpuMs)));
    return { difference, ms, peerMs, ratio: ratioOf(variants[1], variants[0], 'cpuMs')[0] };
  } finally {
    await Promise.all([own, peer].map((session) => session.release()));
  }
}

/** @param folders separated by commas; all ONNX files in them are measured, in CPU time */
export async function published(folders, { rounds, threads, isa }, ort) {
  if (folders === '')
    return ['give folders with ONNX files, separated by commas; packages that have some:', ...packages];
  const options = { rounds: Number(rounds), threads: Number(threads), isa };
  const found = [];
  const failed = [];
  for (const file of folders.split(',').flatMap(filesIn)) {
    const name = file.split('/').slice(-2).join('/');
    try {
      found.push({ name, ...(await ratioOn(file, options, ort)) });
    } catch (error) {
      failed.push(`${name}: ${String(error.message).split('\n')[0]}`);
    }
  }
  if (found.length === 0) return [`no ONNX file in ${folders} could be measured`, ...failed];
  const sorted = found.toSorted((a, b) => a.ratio - b.ratio);
  const rows = sorted.map(({ name, difference, ms, peerMs, ratio }) => [
    name,
    ms.toFixed(2),
    peerMs.toFixed(2),
    ratio.toFixed(2),
    difference.toExponential(0),
  ]);
  const slow = found.filter(({ ratio }) => ratio < SLOW).length;
  return [
    table(['CPU ms of a run', 'residual-skip', 'onnxruntime-node', 'times as fast', 'difference'], rows),
    `${found.length} networks, median ${median(found.map(({ ratio }) => ratio)).toFixed(2)}, ${slow} below ${SLOW}`,
    ...failed,
  ];
}
