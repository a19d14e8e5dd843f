// Loads on a server: closed (so many requests at a time) and open (so many a second, Poisson arrivals, whatever the server
// does). Every answer is compared with what a session in this process answers to the same image in the same setting.
import { Connections } from './connections.mjs';

/** Open loops don't fall asleep between arrivals that are closer than this. */
const TICK_MS = 1;

export class Load {
  #connections;
  #requests;
  #reference;
  #next = 0;

  /**
   * @param reference by setting, for each image the bytes of its scores
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

  /** `width` requests at a time for `seconds`. */
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
   * @param rate requests a second at the time 0 to 1 of the whole: a number, or a function of it
   * @param step called with the outcomes of each of `steps` equal parts of the time, told apart by when a request was due
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
    // What was answered late counts for the time that it took.
    if (steps === 1) parts[0].end();
    return parts;
  }

  /** Latency counts from the moment when the request was due, so that a slow generator isn't taken for a fast server. */
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

/** What became of requests. */
export class Outcomes {
  statuses = {};
  latencies = [];
  wrong = 0;
  settings = {};
  saved = 0;
  /** Images that were answered, by setting. */
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
