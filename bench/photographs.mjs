// JPEG files to labels: ImageClassifier beside sharp with onnxruntime-node, which resizes in one pipeline, with sharp's own settings.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { ImageClassifier } from '../dist/index.js';
import { inRow, median, ratioOf, table, takeTurns } from './harness.mjs';

const MEAN = [0.485, 0.456, 0.406];
const STD = [0.229, 0.224, 0.225];
const EDGE = 256;
const CROP = 224;
const PREPROCESSOR = {
  do_resize: true,
  size: { shortest_edge: EDGE },
  do_center_crop: true,
  crop_size: CROP,
  do_normalize: true,
  image_mean: MEAN,
  image_std: STD,
};
const SIZES = [
  { width: 500, height: 375 },
  { width: 4000, height: 3000 },
];

/** A picture with edges and grain, from a small one. */
async function photograph(path, { width, height }) {
  const grain = { width, height, channels: 3, noise: { type: 'gaussian', mean: 128, sigma: 10 } };
  const noise = await sharp({ create: { ...grain, background: '#808080' } })
    .png({ compressionLevel: 0 })
    .toBuffer();
  const source = readFileSync(new URL('../examples/images/cat-0000.jpg', import.meta.url));
  await sharp(source)
    .resize(width, height, { fit: 'fill' })
    .composite([{ input: noise, blend: 'soft-light' }])
    .jpeg({ quality: 85 })
    .toFile(path);
}

const tables = MEAN.map((mean, c) =>
  Float32Array.from({ length: 256 }, (_, pixel) => (pixel / 255 - mean) / STD[c]),
);

async function prepared(path, { width, height }) {
  const wide = Math.trunc((EDGE * width) / height);
  const pixels = await sharp(path)
    .rotate()
    .resize(wide, EDGE, { fit: 'fill', kernel: 'linear' })
    .extract({ left: (wide - CROP) >> 1, top: (EDGE - CROP) >> 1, width: CROP, height: CROP })
    .removeAlpha()
    .raw()
    .toBuffer();
  const data = new Float32Array(pixels.length);
  for (const [c, values] of tables.entries()) {
    const plane = data.subarray(c * CROP * CROP, (c + 1) * CROP * CROP);
    for (let i = 0; i < plane.length; i++) plane[i] = values[pixels[3 * i + c]];
  }
  return data;
}

/** CPU time of an image of each size, one after the other. */
export async function photographs(model, { rounds, threads, isa }, ort) {
  const folder = mkdtempSync(join(tmpdir(), 'photographs-'));
  const classifier = await ImageClassifier.from(model, {
    preprocessor: PREPROCESSOR,
    threads: Number(threads),
    isa,
    policy: 'full',
  });
  const peer = await ort.InferenceSession.create(model, {
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
  });
  const rows = [];
  for (const size of SIZES) {
    const path = join(folder, `${size.width}.jpg`);
    await photograph(path, size);
    const variants = [
      { title: 'classify', runs: inRow(() => classifier.classify(path)) },
      {
        title: 'sharp and onnxruntime-node',
        runs: inRow(async () => {
          const input = new ort.Tensor('float32', await prepared(path, size), [1, 3, CROP, CROP]);
          return peer.run({ [peer.inputNames[0]]: input });
        }),
      },
    ];
    await takeTurns(variants, { rounds: Number(rounds), turnMs: 200 });
    const milliseconds = variants.map(({ turns }) => median(turns.map(({ cpuMs }) => cpuMs)).toFixed(2));
    rows.push([
      `${size.width} x ${size.height}`,
      ...milliseconds,
      ratioOf(variants[1], variants[0], 'cpuMs')[0].toFixed(2),
    ]);
  }
  await Promise.all([classifier, peer].map((each) => each.release()));
  rmSync(folder, { recursive: true });
  return [table(['CPU ms of an image', 'classify', 'sharp and onnxruntime-node', 'times as fast'], rows)];
}
