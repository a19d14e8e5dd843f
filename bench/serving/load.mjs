// Puts load on a server with the generator beside this file: closed loops (a fixed number of requests at a time) and open
// loops (Poisson arrivals at a rate, regardless of the server). Every answer is compared with that of a session in this
// process for the same image and setting.
import { execFile, execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const ID = '000000000';

export class Load {
  #port;
  #folder = mkdtempSync(join(tmpdir(), 'serving-load-'));
  #generator = join(this.#folder, 'generator');
  #plan = join(this.#folder, 'plan');

  /**
   * @param images Float32Arrays of one shape
   * @param reference by setting: for each image, its scores as bytes
   */
  constructor(url, model, { input, dims, images, reference }) {
    this.#port = new URL(url).port;
    const source = join(import.meta.dirname, 'generator.cc');
    execFileSync('c++', ['-std=c++20', '-O2', '-o', this.#generator, source], { stdio: 'inherit' });
    const heads = headOf(model, { input, dims, bytes: images[0].byteLength });
    const [[answer]] = Object.values(reference);
    const sizes = [heads.length + images[0].byteLength, heads.indexOf(ID), answer.length];
    const plan = openSync(this.#plan, 'w');
    writeSync(plan, `${[images.length, ...sizes, ...Object.keys(reference)].join(' ')}\n`);
    for (const image of images) {
      writeSync(plan, heads);
      writeSync(plan, image);
    }
    for (const answers of Object.values(reference)) for (const bytes of answers) writeSync(plan, bytes);
    closeSync(plan);
  }

  close() {
    rmSync(this.#folder, { recursive: true });
  }

  /** Keeps `width` requests running for `seconds`. */
  async closed(width, seconds) {
    const [outcomes] = await this.#run('closed', width, seconds);
    return outcomes;
  }

  /**
   * @param from requests per second at the beginning
   * @param to requests per second at the end
   * @param steps number of equal parts of the time; a request counts in the part in which it was due
   */
  async open(from, to, seconds, steps = 1) {
    return this.#run('open', from, to, seconds, steps);
  }

  /** Latencies are measured from the time a request was due, so that a slow generator doesn't make the server look fast. */
  async #run(...args) {
    const all = [this.#port, this.#plan, ...args].map(String);
    const { stdout } = await promisify(execFile)(this.#generator, all);
    return stdout.trimEnd().split('\n').map(outcomesOf);
  }
}

/** `cpuUs` is the CPU time of the generator. */
function outcomesOf(line) {
  const outcomes = JSON.parse(line);
  const { statuses, seconds } = outcomes;
  const answered = statuses[200] ?? 0;
  const requests = Object.values(statuses).reduce((sum, count) => sum + count, 0);
  return { ...outcomes, answered, requests, perSecond: answered / seconds };
}

function headOf(model, { input, dims, bytes }) {
  const json = JSON.stringify({
    id: ID,
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
