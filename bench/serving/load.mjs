// Loads on a server: closed loop (a fixed number of concurrent requests) and open loop (a fixed rate with Poisson arrivals,
// regardless of the server). Every answer is compared with that of a session in this process for the same image and setting.
import { Connections } from './connections.mjs';

/** Open loops don't sleep between arrivals that are closer than this. */
const TICK_MS = 1;

export class Load {
  #connections;
  #requests;
  #reference;
  #next = 0;

  /**
   * @param reference by setting: for each image, its scores as bytes
   * @param images Float32Arrays of one shape
   */
  constructor(url, model, { input, dims, images, reference }) {
    this.#connections = new Connections(url);
    this.#reference = reference;
    this.#requests = images.map((pixels) => {
      const body = Buffer.from(pixels.buffer, pixels.byteOffset, pixels.byteLength);
      return { body, head: (id) => headOf(model, id, { input, dims, bytes: body.length }) };
    });
  }

  close() {
    this.#connections.close();
  }

  /** Keeps `width` requests running for `seconds`. */
  async closed(width, seconds) {
    const outcomes = new Outcomes();
    const end = performance.now() + 1000 * seconds;
    const worker = async () => {
      while (performance.now() < end) await this.#request(performance.now(), outcomes);
    };
    outcomes.begin();
    await Promise.all(Array.from({ length: width }, worker));
    outcomes.end();
    return outcomes;
  }

  /**
   * @param rate requests per second: a number, or a function of the elapsed fraction of the time (0 to 1)
   * @param steps number of equal parts of the time; a request counts in the part in which it was due
   */
  async open(rate, seconds, steps = 1) {
    const parts = Array.from({ length: steps }, () => new Outcomes());
    const pending = new Set();
    const start = performance.now();
    const total = 1000 * seconds;
    let due = 0;
    for (const part of parts) part.begin();
    while (due < total) {
      const now = performance.now() - start;
      for (; due <= now && due < total; due += between(rate, due / total)) {
        const part = parts[Math.min(steps - 1, Math.floor((steps * due) / total))];
        const sent = this.#request(start + due, part).finally(() => pending.delete(sent));
        pending.add(sent);
      }
      await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    }
    for (const part of parts) part.last(seconds / steps);
    await Promise.all(pending);
    // A single part ends with its last answer, so that late answers count in its duration.
    if (steps === 1) parts[0].end();
    return parts;
  }

  /** Latency is measured from the time a request was due, so that a slow generator doesn't make the server look fast. */
  async #request(due, outcomes) {
    const number = this.#next++;
    const at = number % this.#requests.length;
    const { body, head } = this.#requests[at];
    const { status, head: answered, body: answer } = await this.#connections.send([head(number), body]);
    const ms = performance.now() - due;
    if (status !== 200) return outcomes.add(status, ms);
    const length = Number(/\r\ninference-header-content-length: (\d+)/.exec(answered)?.[1]);
    const { id, parameters } = JSON.parse(answer.toString('utf8', 0, length));
    const { policy, multiply_adds_skipped: saved } = parameters;
    const expected = this.#reference[policy]?.[at];
    const right = id === idOf(number) && expected !== undefined && answer.subarray(length).equals(expected);
    outcomes.add(status, ms, { right, policy, saved, image: at });
  }
}

/** Outcomes of requests. */
export class Outcomes {
  statuses = {};
  latencies = [];
  wrong = 0;
  settings = {};
  saved = 0;
  /** Number of answered images, by setting. */
  images = {};
  seconds = 0;
  #start = 0;

  begin() {
    this.#start = performance.now();
  }

  end() {
    this.seconds = (performance.now() - this.#start) / 1000;
  }

  last(seconds) {
    this.seconds = seconds;
  }

  add(status, ms, answer) {
    this.statuses[status] = (this.statuses[status] ?? 0) + 1;
    if (!answer) return;
    this.latencies.push(ms);
    if (!answer.right) this.wrong++;
    this.settings[answer.policy] = (this.settings[answer.policy] ?? 0) + 1;
    this.saved += answer.saved;
    this.images[answer.policy] ??= new Set();
    this.images[answer.policy].add(answer.image);
  }

  get answered() {
    return this.statuses[200] ?? 0;
  }

  get requests() {
    return Object.values(this.statuses).reduce((sum, count) => sum + count, 0);
  }

  get perSecond() {
    return this.answered / this.seconds;
  }

  quantile(q) {
    const sorted = this.latencies.toSorted((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
  }
}

const idOf = (number) => String(number).padStart(9, '0');

function headOf(model, number, { input, dims, bytes }) {
  const json = JSON.stringify({
    id: idOf(number),
    parameters: { binary_data_output: true },
    inputs: [{ name: input, datatype: 'FP32', shape: dims, parameters: { binary_data_size: bytes } }],
  });
  return [
    `POST /v2/models/${model}/infer HTTP/1.1`,
    'host: localhost',
    'content-type: application/octet-stream',
    `inference-header-content-length: ${json.length}`,
    `content-length: ${json.length + bytes}`,
    '',
    json,
  ].join('\r\n');
}

function between(rate, at) {
  const perSecond = typeof rate === 'function' ? rate(at) : rate;
  return (-Math.log(1 - Math.random()) * 1000) / perSecond;
}
