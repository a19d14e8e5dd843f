// Intervals of 95 % by the bootstrap, with a fixed seed: the same measurements give the same interval. Percentiles of 2,000
// repetitions (Efron and Tibshirani 1993).
import { generator } from '../dist/numeric/random.js';
import { mean, quantile } from '../dist/numeric/statistics.js';

const REPETITIONS = 2000;

/** Both ends that hold 95 % of the values. */
const ends = (values) => [quantile(values, 0.025), quantile(values, 0.975)];

/** `count` indices below `count`, with replacement. */
const draw = (count, random) => Array.from({ length: count }, () => Math.floor(random() * count));

/**
 * Share of its time that skipping saves, from the milliseconds of the same turns without and with it. Turns are drawn, because items
 * of one turn share what disturbed it.
 */
export function cutOf(before, after) {
  const random = generator(1);
  const cut = (turns) => {
    const total = (list) => turns.reduce((sum, turn) => sum + list[turn], 0);
    return 1 - total(after) / total(before);
  };
  const values = Array.from({ length: REPETITIONS }, () => cut(draw(before.length, random)));
  return { value: cut([...before.keys()]), ci95: ends(values) };
}

/** Means of lists over items that are drawn with replacement, the same ones for all lists. */
function drawnMeans(lists, items, random) {
  const counts = new Float64Array(items);
  for (let i = 0; i < items; i++) counts[Math.floor(random() * items)]++;
  return lists.map((list) => {
    let sum = 0;
    for (let i = 0; i < items; i++) sum += counts[i] * list[i];
    return sum / items;
  });
}

/**
 * A hierarchical bootstrap of networks that answered the same items: it draws seeds, and items, which are the same for all networks.
 * Roles that have the same seeds draw the same ones, since they shared start and data. A role with one seed has no spread of seeds.
 * @param networks [{ role, seed, [key]: a number or boolean for each item }]
 * @returns a function of a statistic, which gets the mean of each role as `of(role)`: `{ value, ci95 }`
 */
export function bootstrapOf(networks, key = 'right') {
  const random = generator(1);
  const lists = networks.map((network) => Float64Array.from(network[key], Number));
  const items = lists[0]?.length ?? 0;
  const bySeed = [...networks.keys()].sort((a, b) => networks[a].seed - networks[b].seed);
  const roles = new Set(networks.map(({ role }) => role));
  const members = new Map([...roles].map((role) => [role, bySeed.filter((i) => networks[i].role === role)]));
  const seedsOf = (own) => own.map((i) => networks[i].seed).join();
  /** Mean of each role, of the networks that `pick` gives, by their means. */
  const meansOf = (means, pick) =>
    new Map([...members].map(([role, own]) => [role, mean(pick(own).map((k) => means[own[k]]))]));
  const observed = meansOf(
    lists.map((list) => mean([...list])),
    (own) => [...own.keys()],
  );
  const repetitions = Array.from({ length: networks.length > 0 ? REPETITIONS : 0 }, () => {
    const drawn = new Map();
    const pick = (own) => {
      const seeds = seedsOf(own);
      if (!drawn.has(seeds)) drawn.set(seeds, draw(own.length, random));
      return drawn.get(seeds);
    };
    return meansOf(drawnMeans(lists, items, random), pick);
  });
  return (statistic) => ({
    value: statistic((role) => observed.get(role)),
    ci95: ends(repetitions.map((one) => statistic((role) => one.get(role)))),
  });
}
