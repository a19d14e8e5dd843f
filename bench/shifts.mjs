// What a promise becomes when the data shift: seeded noise, blur, contrast and JPEG in five strengths, in the manner of CIFAR-10-C
// (Hendrycks and Dietterich 2019, arXiv 1903.12261; its constants for images of 32 x 32 pixels). Build first.
//   node bench/shifts.mjs --data DIR [--items N] [--kinds KIND,...] [--seeds N] MODEL...
// Each MODEL is a folder with a policy. DIR has a folder of images for each class, named as the model's labels. Prints a table for each.
// A seed gives the noise and the order of the items; of several seeds, means with the least and the largest value are printed where these
// differ, and of alarms the median item and how many seeds had one.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { ImageClassifier, watch } from '../dist/index.js';
import { generator, shuffle } from '../dist/numeric/random.js';
import { mean, median } from '../dist/numeric/statistics.js';
import { table } from './harness.mjs';

const { values: options, positionals } = parseArgs({
  options: {
    data: { type: 'string' },
    items: { type: 'string' },
    kinds: { type: 'string' },
    seeds: { type: 'string', default: '1' },
  },
  allowPositionals: true,
});
if (!options.data || positionals.length === 0) {
  throw new Error(
    'usage: node bench/shifts.mjs --data DIR [--items N] [--kinds KIND,...] [--seeds N] MODEL...',
  );
}
const SEEDS = Number(options.seeds);

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

/** The image as PNG, altered. Noise depends on the seed alone. */
async function altered(path, { kind, strength }, seed) {
  const image = sharp(path).removeAlpha().toColourspace('srgb');
  const by = STRENGTHS[kind]?.[strength - 1];
  if (kind === 'jpeg')
    return sharp(await image.jpeg({ quality: by }).toBuffer())
      .png()
      .toBuffer();
  if (kind === 'blur') return image.blur({ sigma: by, minAmplitude: 0.01 }).png().toBuffer();
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

/** Images with labels, those whose names have the least hashes, each with a seed: the same for every model. */
function imagesOf(folder, count) {
  const hash = (name) => createHash('sha256').update(name).digest('hex');
  return readdirSync(folder)
    .flatMap((label) => readdirSync(join(folder, label)).map((file) => ({ label, name: `${label}/${file}` })))
    .map((image) => ({ ...image, path: join(folder, image.name), key: hash(image.name) }))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
    .slice(0, count)
    .map((image, i) => ({ ...image, seed: i + 1 }));
}

/** Answers that may change, as the monitor tests it, and the items in one of its windows of drift. */
const [LIMIT, WINDOW] = [0.01, 100];

/** What one model does with one shift. The monitor compares every item and only warns, so that it sees the whole stream. */
async function measure(model, shift, images) {
  const monitor = watch({ shadow: 1, maxDisagreement: LIMIT, onTrip: 'warn', window: WINDOW });
  const alarms = {};
  let items = 0;
  for (const name of ['drift', 'trip']) {
    monitor.on(name, () => {
      alarms[name] ??= items;
    });
  }
  const create = (more) => ImageClassifier.from(model, { threads: 1, ...more });
  const full = await create({ policy: 'full' });
  const skipping = await create({ observers: [monitor] });
  try {
    const { multiplyAdds } = skipping.session.model;
    const sums = { changed: 0, full: 0, skipping: 0, saved: 0 };
    const left = {};
    for (const { path, label, seed } of images) {
      const image = await altered(path, shift, seed);
      items++;
      const [before, after] = [await full.classify(image), await skipping.classify(image, { trace: true })];
      await monitor.settled();
      sums.changed += Number(before.label !== after.label);
      sums.full += Number(before.label === label);
      sums.skipping += Number(after.label === label);
      sums.saved += after.trace.multiplyAddsSkipped / multiplyAdds;
      const exit = after.trace.exits.find(({ taken }) => taken)?.after;
      if (exit) left[exit] = (left[exit] ?? 0) + 1 / images.length;
    }
    const shares = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / items]));
    return { ...shares, left, alarms };
  } finally {
    await full.release();
    await skipping.release();
  }
}

/** A share of each seed's items. */
function percents(shares, digits) {
  const [least, most] = [Math.min(...shares), Math.max(...shares)].map((end) => percent(end, digits));
  return least === most ? least : `${percent(mean(shares), digits)} (${least} to ${most})`;
}

/** The item of each seed at which the monitor spoke, if it did. */
function spoke(items) {
  const known = items.filter((item) => item !== undefined);
  if (known.length === 0) return 'silent';
  return items.length === 1 ? known[0] : `${median(known)} (${known.length} of ${items.length})`;
}

const percent = (share, digits = 1) => `${(100 * (share ?? 0)).toFixed(digits)} %`;

const images = imagesOf(options.data, options.items && Number(options.items));
for (const model of positionals) {
  const policy = JSON.parse(readFileSync(join(model, 'policy.json'), 'utf8'));
  const exits = policy.heads.exits.map(({ after }) => after);
  const head = [
    ...['shift', 'changed', 'accuracy in full', 'accuracy', 'work'],
    ...exits.map((name) => `left at ${name}`),
    ...['drift', 'test'],
  ];
  console.log(`${basename(model)}, ${images.length} images\n\n${table(head, [])}`);
  for (const [place, shift] of SHIFTS.entries()) {
    if (options.kinds && !options.kinds.split(',').includes(shift.kind)) continue;
    const runs = [];
    for (let seed = 0; seed < SEEDS; seed++) {
      // In an order of its own, since the items at which the monitor speaks depend on it.
      const order = [...images.keys()];
      shuffle(order, generator(place + seed * SHIFTS.length));
      const seeded = order.map((i) => ({ ...images[i], seed: images[i].seed + seed * images.length }));
      runs.push(await measure(model, shift, seeded));
    }
    const all = (of) => runs.map((run) => of(run) ?? 0);
    const cells = [
      shift.strength === 0 ? 'none' : `${shift.kind} ${shift.strength}`,
      percents(
        all(({ changed }) => changed),
        2,
      ),
      percents(all(({ full }) => full)),
      percents(all(({ skipping }) => skipping)),
      percents(all(({ saved }) => 1 - saved)),
      ...exits.map((name) => percents(all(({ left }) => left[name]))),
      ...['drift', 'trip'].map((name) => spoke(runs.map(({ alarms }) => alarms[name]))),
    ];
    console.log(table(head, [cells]).split('\n').at(-1));
  }
}
