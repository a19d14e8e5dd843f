// What a promise becomes when the data shift: seeded noise, blur, contrast and JPEG in five strengths, in the manner of CIFAR-10-C
// (Hendrycks and Dietterich 2019, arXiv 1903.12261; its constants for images of 32 x 32 pixels). Build first.
//   node bench/shifts.mjs --data DIR [--items N] [--json] MODEL...
// Each MODEL is a folder with a policy. DIR has a folder of images for each class, named as the model's labels. Prints a table for each.
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { ImageClassifier, watch } from '../dist/index.js';
import { generator } from '../dist/numeric/random.js';
import { table } from './harness.mjs';

const { values: options, positionals } = parseArgs({
  options: { data: { type: 'string' }, items: { type: 'string' }, json: { type: 'boolean' } },
  allowPositionals: true,
});
if (!options.data || positionals.length === 0) {
  throw new Error('usage: node bench/shifts.mjs --data DIR [--items N] [--json] MODEL...');
}

/** Of each strength: the standard deviation of noise, the radius of blur in pixels, the factor of contrast, the quality of JPEG. */
const STRENGTHS = {
  noise: [0.04, 0.06, 0.08, 0.09, 0.1],
  blur: [0.4, 0.6, 0.7, 0.8, 1],
  contrast: [0.75, 0.5, 0.4, 0.3, 0.15],
  jpeg: [80, 65, 58, 50, 40],
};
const SHIFTS = [
  { kind: 'none', strength: 0 },
  ...Object.keys(STRENGTHS).flatMap((kind) => STRENGTHS[kind].map((_, i) => ({ kind, strength: i + 1 }))),
];

/** Standard normal numbers (Box and Muller 1958). */
function normals(seed) {
  const random = generator(seed);
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** The image as PNG, altered. Noise depends on the place of the image alone. */
async function altered(path, { kind, strength }, seed) {
  const image = sharp(path).removeAlpha().toColourspace('srgb');
  const by = STRENGTHS[kind]?.[strength - 1];
  if (kind === 'jpeg') return sharp(await image.jpeg({ quality: by }).toBuffer()).png().toBuffer();
  if (kind === 'blur') return image.blur(by).png().toBuffer();
  if (kind === 'none') return image.png().toBuffer();
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  if (kind === 'noise') {
    const normal = normals(seed);
    for (let i = 0; i < data.length; i++) data[i] = clamped(data[i] + 255 * by * normal());
  } else {
    const means = Array(channels).fill(0);
    for (let i = 0; i < data.length; i++) means[i % channels] += data[i] / (width * height);
    for (let i = 0; i < data.length; i++) {
      const mean = means[i % channels];
      data[i] = clamped((data[i] - mean) * by + mean);
    }
  }
  return sharp(data, { raw: { width, height, channels } }).png().toBuffer();
}

const clamped = (value) => Math.min(255, Math.max(0, Math.round(value)));

/** Images with labels, in an order by the hash of their names: the same for every model. */
function imagesOf(folder, count) {
  const hash = (name) => createHash('sha256').update(name).digest('hex');
  return readdirSync(folder)
    .flatMap((label) => readdirSync(join(folder, label)).map((file) => ({ label, name: `${label}/${file}` })))
    .map((image) => ({ ...image, path: join(folder, image.name), key: hash(image.name) }))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
    .slice(0, count);
}

/** What one model does with one shift. The monitor runs every item in full as well, and only warns, so that it sees the whole stream. */
async function measure(model, shift, images) {
  const monitor = watch({ shadow: 0.999, onTrip: 'warn', window: WINDOW });
  const said = {};
  let item = 0;
  monitor.on('trip', () => {
    said.trip ??= item;
  });
  monitor.on('drift', () => {
    said.drift ??= item;
  });
  const create = (more) => ImageClassifier.create(model, { threads: 1, ...more });
  const [full, skipping] = [await create({ policy: 'full' }), await create({ observers: [monitor] })];
  try {
    const counts = { changed: 0, full: 0, skipping: 0, saved: 0 };
    const left = {};
    for (const [i, { path, label }] of images.entries()) {
      const image = await altered(path, shift, i + 1);
      item = i + 1;
      const [[one], [other]] = [await full.classify(image), await skipping.classify(image)];
      await monitor.settled();
      counts.changed += Number(one.label !== other.label);
      counts.full += Number(one.label === label);
      counts.skipping += Number(other.label === label);
      const { trace } = skipping;
    }
    return { ...shift, items: images.length, ...counts, left, said };
  } finally {
    await full.release();
    await skipping.release();
  }
}
const WINDOW = 100;
