// Measures one data set's networks on its test images: answers, decisions, and alternating latencies.

import sharp from 'sharp';
import { latencyOf, pairedChange } from '../../dist/measure/statistics.js';
import { argMax } from '../../dist/numeric/softmax.js';
import { chooseStatic, dialThresholds, keepPolicy, randomKept, sum } from './choices.mjs';
import {
  modelFolders,
  onnxruntime,
  open,
  openOnnxruntime,
  pytorchDecisions,
  readImages,
} from './networks.mjs';

/** Consecutive images per runner before the next runner's turn, so that each has its weights in the caches. */
const TURN = 10;
/** Training images on which the static choices are compared. */
const STATIC_IMAGES = 1000;
const DIAL_IMAGES = 1000;
const DIAL_SETTINGS = 9;
/** Number of example images with the shortest and with the longest paths. */
const EXAMPLES = 6;

/** Alternates runners over the images; returns each runner's milliseconds per image and passes answers to `seen`. */
export async function alternate(runners, images, seen, advance = () => {}) {
  const times = runners.map(() => []);
  for (let start = 0; start < images.length; start += TURN) {
    const turn = images.slice(start, start + TURN);
    for (let k = 0; k < runners.length; k++) {
      const index = (k + start / TURN) % runners.length;
      await runners[index].run(turn[0].tensor);
      for (const [i, { tensor }] of turn.entries()) {
        const before = performance.now();
        const answer = await runners[index].run(tensor);
        times[index].push(performance.now() - before);
        seen(index, start + i, answer);
      }
    }
    advance(turn.length);
  }
  return times;
}

const rightOf = (answers, images) => answers.map((answer, i) => answer === images[i].image.label);
const share = (flags) => flags.filter(Boolean).length / flags.length;

/** Change of accuracy from `a` to `b` (per image right or wrong), with its paired 95 % interval. */
function change(a, b) {
  const gained = b.filter((right, i) => right && !a[i]).length;
  const lost = a.filter((right, i) => right && !b[i]).length;
  return pairedChange(a.length, gained, lost);
}

/** Answers and decisions of a network with its policy: class, flags of the blocks, and skipped work. */
function classifyAll(network, images, advance = () => {}) {
  return images.map(({ tensor }) => {
    const { scores, trace, multiplyAdds, layers } = network.classify(tensor);
    advance(1);
    return {
      answer: argMax(scores),
      ran: trace.blocks.map((block) => block.ran),
      scores: trace.blocks.map((block) => block.score),
      multiplyAdds: trace.multiplyAddsSkipped / multiplyAdds,
      layers: trace.layersSkipped / layers,
    };
  });
}

function compareDecisions(folder, results, gates) {
  const pytorch = pytorchDecisions(folder);
  if (!pytorch || pytorch.images !== results.length) return undefined;
  const differing = results.flatMap(({ ran }, image) =>
    gates.some((block, position) => pytorch.ran(image, position) !== Number(ran[block])) ? [image] : [],
  );
  return {
    images: results.length,
    near: pytorch.near.size,
    differing: differing.length,
    unexplained: differing.filter((image) => !pytorch.near.has(image)).length,
  };
}

async function measureDial(plain, folder, results, gates, images) {
  const some = images.filter((_, i) => i % Math.max(1, Math.floor(images.length / DIAL_IMAGES)) === 0);
  const scores = results.flatMap((result) => gates.map((block) => result.scores[block]));
  const thresholds = dialThresholds(scores, DIAL_SETTINGS);
  const settings = [];
  for (const threshold of thresholds) {
    settings.push({ threshold, network: await open(folder, { default: { threshold }, blocks: {} }) });
  }
  const runners = [plain, ...settings.map(({ network }) => network)].map((network) => ({
    run: (tensor) => network.time(tensor, 'skip').scores,
  }));
  const times = await alternate(runners, some, () => {});
  const base = latencyOf(times[0]);
  const points = settings.map(({ threshold, network }, i) => {
    const all = classifyAll(network, images);
    return {
      threshold,
      accuracy: share(
        rightOf(
          all.map(({ answer }) => answer),
          images,
        ),
      ),
      multiplyAddsBypassed: sum(all.map((one) => one.multiplyAdds)) / all.length,
      latency: latencyOf(times[i + 1]).mean / base.mean,
    };
  });
  await Promise.all(settings.map(({ network }) => network.release()));
  return points;
}

/** Skip rate of every gated block for every class. */
function skipRates(results, images, gates, labels) {
  return labels.flatMap((label, index) => {
    const own = results.filter((_, i) => images[i].image.label === index);
    return gates.map((block) => ({
      label,
      block,
      rate: own.filter(({ ran }) => !ran[block]).length / own.length,
    }));
  });
}

async function thumbnail(sample) {
  const { width, height, channels, data } = await sample.load();
  const png = await sharp(Buffer.from(data), { raw: { width, height, channels } }).png().toBuffer();
  return png.toString('base64');
}

/** The images with the shortest and the longest paths, as PNG, with the gates' decisions. */
async function extremes(results, images, gates, count) {
  const order = results
    .map((_, i) => i)
    .sort((a, b) => results[b].multiplyAdds - results[a].multiplyAdds || a - b);
  const entry = async (i) => ({
    png: await thumbnail(images[i].image),
    label: images[i].image.label,
    answer: results[i].answer,
    path: gates.map((block) => Number(results[i].ran[block])).join(''),
  });
  return {
    shortest: await Promise.all(order.slice(0, count).map(entry)),
    longest: await Promise.all(order.slice(-count).reverse().map(entry)),
  };
}

export async function measure(dataset, { data, limit, progress }) {
  const folders = modelFolders(dataset);
  const [plain, gated, full] = await Promise.all([
    open(folders.plain, 'full'),
    open(folders.gated, 'model'),
    open(folders.gated, 'full'),
  ]);
  const images = await readImages(plain, data, dataset, 'test', limit);
  const training = await readImages(plain, data, dataset, 'train', STATIC_IMAGES);
  const peer = onnxruntime();
  const runners = [
    ['plain', plain],
    ['full', full],
    ['gated', gated],
  ].map(([name, network]) => ({ name, run: (tensor) => network.time(tensor, 'skip').scores }));
  const peers = [];
  if (peer) {
    for (const name of ['plain', 'gated']) {
      const session = await openOnnxruntime(peer, folders[name], (tensor) => plain.feeds(tensor));
      peers.push({ name: `onnxruntime ${name}`, ...session });
    }
  }
  const all = [...runners, ...peers];
  const answers = all.map(() => []);
  plain.warmUp(images[0].tensor);
  progress(`${dataset}: ${images.length} images, ${all.map(({ name }) => name).join(', ')}`, images.length);
  const times = await alternate(
    all,
    images,
    (k, i, scores) => (answers[k][i] = argMax(scores)),
    progress.advance,
  );

  progress(`${dataset}: decisions`, images.length);
  const results = classifyAll(gated, images, progress.advance);
  const blocks = gated.blocks;
  const gates = blocks.filter(({ gate }) => gate).map(({ index }) => index);
  const mean = (key) => sum(results.map((result) => result[key])) / results.length;
  const bypassed = { layers: mean('layers'), multiplyAdds: mean('multiplyAdds') };

  progress(`${dataset}: static choices`, 1);
  const chosen = await chooseStatic(folders.gated, blocks, bypassed.multiplyAdds, training);
  const statics = await open(folders.gated, keepPolicy(blocks, chosen.kept));
  const staticAnswers = classifyAll(statics, images).map(({ answer }) => answer);
  const runPerItem = sum(results.map(({ ran }) => gates.filter((b) => ran[b]).length)) / results.length;
  const randomAnswers = [];
  for (const [i, { tensor }] of images.entries()) {
    const policy = keepPolicy(blocks, randomKept(gates, runPerItem, i));
    const outputs = gated.session.runSync(gated.feeds(tensor), { policy });
    randomAnswers.push(argMax(Object.values(outputs)[0].data));
  }
  progress(`${dataset}: dial`, 1);
  const dial = await measureDial(plain, folders.gated, results, gates, images);

  const right = Object.fromEntries(all.map(({ name }, k) => [name, rightOf(answers[k], images)]));
  right.static = rightOf(staticAnswers, images);
  right.random = rightOf(randomAnswers, images);
  const report = {
    dataset,
    networks: { plain: folders.plain.split('/').at(-1), gated: folders.gated.split('/').at(-1) },
    items: images.length,
    complete: limit === undefined,
    peer: peer?.version,
    isa: gated.session.isa,
    accuracy: Object.fromEntries(Object.entries(right).map(([name, flags]) => [name, share(flags)])),
    gatedMinusPlain: change(right.plain, right.gated),
    gatedMinusStatic: change(right.static, right.gated),
    bypassed,
    staticChoice: chosen,
    paths: new Set(results.map(({ ran }) => ran.map(Number).join(''))).size,
    latencyMs: Object.fromEntries(all.map(({ name }, k) => [name, latencyOf(times[k])])),
    decisions: compareDecisions(folders.gated, results, gates),
    dial,
    labels: gated.model.labels,
    gates,
    skipRates: skipRates(results, images, gates, gated.model.labels),
    extremes: await extremes(results, images, gates, EXAMPLES),
  };
  await Promise.all([plain, gated, full, statics, ...peers].map((each) => each.release()));
  return report;
}
