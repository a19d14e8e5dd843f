/**
 * Freshly exported networks against onnxruntime. Needs what `test/fixtures/export_models.py` writes (in
 * RESIDUAL_SKIP_FIXTURES, or .cache/fixtures) and onnxruntime-node (as bench/package.json installs it, or where
 * RESIDUAL_SKIP_ONNXRUNTIME says). Where RESIDUAL_SKIP_RESULTS names a file, it gets a line of JSON for each network and backend.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type InferenceSession, type Isa, type SkipTrace, Tensor } from 'lib/index.js';
import { availableIsas, withSession } from '../helpers/sessions.js';

const ROOT = resolve(__dirname, '../..');
const FOLDER = process.env.RESIDUAL_SKIP_FIXTURES ?? join(ROOT, '.cache/fixtures');
const RESULTS = process.env.RESIDUAL_SKIP_RESULTS;
const RUNTIME = process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? join(ROOT, 'bench/node_modules/onnxruntime-node');
/** Largest difference, as a fraction of the largest logit. */
const TOLERANCE = 2e-4;
/** One network of each family, whose bits are compared; scripts/ci/native.sh compares those of NEON. */
const FAMILIES: ReadonlySet<string> = new Set(
  `resnet18 mobilenet_v2 efficientnet_b0 regnet_y_400mf preact_resnet32 option_a_resnet56 se_resnet20 densenet googlenet shufflenet
  group_norm_resnet instance_norm_resnet vit swin swin_v2 convnext tokens_mixer gate_blend gate_skipnet_lstm gate_attention_module
  bert_opset17 bert_exits_opset17 minilm_opset17 roberta_opset17 distilbert_opset17 gpt2_opset17 llama_opset17 cait beit
  deit_distilled`.split(/\s+/),
);

/** What the exporter says of a network; without `inputs` it has one, named `input`. */
interface Facts {
  readonly shape: readonly number[];
  readonly inputs?: readonly {
    readonly name: string;
    readonly dtype: 'float32' | 'int64';
    readonly shape: readonly number[];
  }[];
  readonly batched: boolean;
  readonly blocks: number;
  readonly gates: number;
  /** Early exits; none when left out. */
  readonly exits?: number;
  /** The logits in double precision. */
  readonly exact?: readonly (readonly number[])[];
}

interface Network extends Omit<Facts, 'inputs'> {
  readonly model: string;
  readonly items: number;
  readonly inputs: ReadonlyMap<string, Tensor>;
}

function networkOf(name: string): Network {
  const facts = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8')) as Facts;
  const bytes = new Uint8Array(readFileSync(join(FOLDER, `${name}.bin`))).buffer;
  const { inputs = [{ name: 'input', dtype: 'float32', shape: facts.shape } as const] } = facts;
  let at = 0;
  const tensors = inputs.map(({ name: input, dtype, shape }): [string, Tensor] => {
    const count = shape.reduce((a, b) => a * b);
    const data = dtype === 'int64' ? new BigInt64Array(bytes, at, count) : new Float32Array(bytes, at, count);
    at += data.byteLength;
    return [input, new Tensor(dtype, data as Float32Array, shape) as Tensor];
  });
  const [items = 1] = inputs[0]!.shape;
  return { ...facts, model: join(FOLDER, `${name}.onnx`), items, inputs: new Map(tensors) };
}

/** onnxruntime's logits of every item. */
function expectedLogits(name: string): number[][] {
  const script = join(ROOT, 'test/helpers/onnxruntime.mjs');
  return JSON.parse(execFileSync(process.execPath, [script, RUNTIME, FOLDER, name], { encoding: 'utf8' }));
}

interface Ran {
  readonly logits: readonly Float32Array[];
  readonly traces: SkipTrace['items'];
}

/** `count` items from item `first` on. */
function partOf({ inputs, items }: Network, first: number, count: number): Record<string, Tensor> {
  const part = ({ data, dims, type }: Tensor) => {
    const size = data.length / items;
    const elements = data.slice(first * size, (first + count) * size);
    return new Tensor(type, elements as Float32Array, [count, ...dims.slice(1)]) as Tensor;
  };
  return Object.fromEntries([...inputs].map(([name, tensor]) => [name, part(tensor)]));
}

/** All items, `count` at a time: as one batch, or one after another where the network takes only one. */
async function runAll(
  session: InferenceSession,
  network: Network,
  count = network.batched ? network.items : 1,
): Promise<Ran> {
  const logits: Float32Array[] = [];
  const traces: SkipTrace['items'][number][] = [];
  for (let first = 0; first < network.items; first += count) {
    const { outputs, trace } = await session.runTraced(partOf(network, first, count));
    const rows = outputs.logits!.data as Float32Array;
    for (let i = 0; i < count; i++) {
      logits.push(rows.slice((i * rows.length) / count, ((i + 1) * rows.length) / count));
    }
    traces.push(...trace.items);
  }
  return { logits, traces };
}

/** The bits of each item's logits, and what it ran. */
function itemsOf({ logits, traces }: Ran): string[] {
  return logits.map((row, i) => {
    const { blocks, exits } = traces[i]!;
    const bits = new Uint8Array(row.buffer, row.byteOffset, row.byteLength);
    return createHash('sha256')
      .update(bits)
      .update(JSON.stringify([blocks, exits]))
      .digest('hex');
  });
}

type Rows = readonly ArrayLike<number>[];

function worstDifference(actual: Rows, expected: readonly (readonly number[])[]): number {
  const largest = Math.max(...expected.flat().map(Math.abs));
  const differences = expected.flatMap((row, item) => row.map((x, k) => Math.abs(x - actual[item]![k]!)));
  return Math.max(...differences) / largest;
}

const names = existsSync(FOLDER)
  ? readdirSync(FOLDER).flatMap((file) => (file.endsWith('.onnx') ? file.slice(0, -'.onnx'.length) : []))
  : [];
const missing = [
  ...(names.length === 0 ? [`no networks in ${FOLDER}: run test/fixtures/export_models.py`] : []),
  ...(existsSync(RUNTIME) ? [] : [`no onnxruntime-node in ${RUNTIME}: run npm ci --ignore-scripts in bench`]),
];

if (missing.length > 0) test.skip(`skipped: ${missing.join('; ')}`, () => {});
else {
  describe.each(names)('%s', (name) => {
    const network = networkOf(name);
    let expected: number[][];
    beforeAll(() => {
      expected = expectedLogits(name);
    });

    test.each(['native', 'reference'] as const)('%s agrees with onnxruntime', async (backend) => {
      await withSession(network.model, { backend }, async (session) => {
        const { logits, traces } = await runAll(session, network);
        expect(session.blocks).toHaveLength(network.blocks);
        const gated = session.blocks.filter(({ gate }) => gate);
        expect(gated).toHaveLength(network.gates);
        // Some networks with random weights are chaotic: there, our error may be twice onnxruntime's.
        const difference = worstDifference(logits, expected);
        const { exact } = network;
        const errors = exact && [worstDifference(logits, exact), worstDifference(expected, exact)];
        if (RESULTS) {
          const { length: blocks } = session.blocks;
          appendFileSync(RESULTS, `${JSON.stringify({ name, backend, blocks, difference, errors })}\n`);
        }
        if (errors && difference > TOLERANCE) expect(errors[0]).toBeLessThanOrEqual(2 * errors[1]!);
        else expect(difference).toBeLessThanOrEqual(TOLERANCE);
        for (const { index } of gated) {
          const decisions = traces.map(({ blocks }) => blocks[index]!.ran);
          expect(new Set(decisions).size).toBe(2);
        }
        // Each exit lets an item go, and one reaches the end.
        const left = traces.map(({ exits }) => exits.find(({ taken }) => taken)?.after);
        expect(new Set(left).size).toBe((network.exits ?? 0) + 1);
      });
    });

    (FAMILIES.has(name) ? test : test.skip)('has the same bits everywhere', async () => {
      const ran = (isa: Isa, threads: number, count?: number) =>
        withSession(network.model, { isa, threads }, async (session) =>
          itemsOf(await runAll(session, network, count)),
        );
      const expected = await ran('scalar', 1);
      expect(new Set(expected).size).toBe(network.items);
      const isas = await availableIsas(network.model);
      for (const isa of isas) {
        for (const [threads, count] of [
          [1, undefined],
          [2, undefined],
          [2, 1],
        ] as const) {
          expect([isa, threads, count, await ran(isa, threads, count)]).toEqual([
            isa,
            threads,
            count,
            expected,
          ]);
        }
      }
    });
  });
}
