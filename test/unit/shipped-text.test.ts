import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type SessionOptions, TextClassifier } from 'lib/index.js';
import { cliJson } from '../helpers/cli.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { availableIsas } from '../helpers/sessions.js';

const MODELS = resolve(__dirname, '../../models');
const PLAIN = join(MODELS, 'sst2-encoder');
const GATED = join(MODELS, 'sst2-encoder-exits');
const POLICY = join(GATED, 'policy.json');

/** PyTorch's logits of some texts, in this file's own tokens, with the exits' thresholds of the file. */
interface Reference {
  readonly items: readonly {
    readonly text: string;
    readonly label: number;
    readonly full: readonly number[];
  }[];
}

const readJson = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
const itemsOf = (folder: string) => (readJson(join(folder, 'reference.json')) as Reference).items;

async function using<T>(
  folder: string,
  options: SessionOptions,
  work: (classifier: TextClassifier) => Promise<T>,
): Promise<T> {
  const classifier = await TextClassifier.from(folder, options);
  try {
    return await work(classifier);
  } finally {
    await classifier.release();
  }
}

afterAll(removeFolders);

describe('the encoders for SST-2', () => {
  it.each([PLAIN, GATED])('%s answers with the logits of PyTorch, from its own tokens', async (folder) => {
    const items = itemsOf(folder);
    expect(items).toHaveLength(4);
    const isas = await availableIsas(join(folder, 'model.onnx'));
    const engines: SessionOptions[] = [
      { backend: 'reference' },
      ...isas.map((isa): SessionOptions => ({ backend: 'native', isa })),
    ];
    for (const options of engines) {
      await using(folder, { ...options, policy: 'model' }, async (classifier) => {
        expect(classifier.labels).toEqual(['negative', 'positive']);
        for (const { text, full } of items) {
          const prepared = classifier.prepare(text);
          const outputs = await classifier.session.run(classifier.feeds(prepared));
          const scores = classifier.scoresOf(outputs, prepared);
          const worst = Math.max(...full.map((value, i) => Math.abs(value - scores[i]!)));
          expect({ text, near: worst < 1e-4, worst }).toMatchObject({ near: true });
        }
      });
    }
  });

  it('the policy is certified for this very file, and each exit of it decides by its threshold', async () => {
    const { model, promise, heads } = readJson(POLICY);
    expect(model.sha256).toBe(
      createHash('sha256')
        .update(readFileSync(join(GATED, 'model.onnx')))
        .digest('hex'),
    );
    expect(promise.upperBound).toBeLessThanOrEqual(promise.limit);
    const texts = itemsOf(GATED).map(({ text }) => text);
    await using(GATED, { policy: POLICY }, async (classifier) => {
      const answers = await classifier.classify(texts, { trace: true });
      for (const { trace } of answers) {
        const { exits, blocks } = trace!;
        for (const exit of exits) {
          const { threshold } = heads.exits.find(({ after }: { after: string }) => after === exit.after);
          expect([exit.threshold, exit.taken]).toEqual([threshold, exit.score >= threshold]);
        }
        const left = exits.find(({ taken }) => taken);
        const depth = left ? blocks.findIndex(({ block }) => block === left.after) + 1 : blocks.length;
        expect(blocks.map(({ ran }) => ran)).toEqual(blocks.map((_, i) => i < depth));
      }
      // Each text alone takes the path that it took among the others.
      const alone = await Promise.all(texts.map((text) => classifier.classify(text, { trace: true })));
      expect(alone).toEqual(answers);
    });
  });

  it('run names the answer, and sure texts leave after the first layer', async () => {
    const answers = (await cliJson('run', GATED, 'a masterpiece', 'dull and lifeless')) as readonly {
      readonly top: readonly { readonly label: string }[];
      readonly blocks: object;
    }[];
    expect(answers.map(({ top }) => top[0]!.label)).toEqual(['positive', 'negative']);
    expect(answers.map(({ blocks }) => blocks)).toEqual(
      answers.map(() => ({ total: 8, skippable: 8, skipped: 6, pattern: '##......' })),
    );
  });

  it('eval counts the answers that the policy changes, and the blocks that it leaves out', async () => {
    const items = itemsOf(GATED);
    const texts = items.map(({ text }) => text);
    const answers = (policy: string) =>
      using(GATED, { policy }, (classifier) => classifier.classify(texts, { trace: true }));
    const [full, own] = [await answers('full'), await answers(POLICY)];
    const share = (flags: readonly boolean[]) => flags.filter(Boolean).length / flags.length;
    const file = join(
      folderOf({ 'texts.tsv': items.map(({ text, label }) => `${text}\t${label}\n`).join('') }),
      'texts.tsv',
    );
    const report = await cliJson('eval', GATED, '--policy', POLICY, '--data', file);
    expect(report).toMatchObject({
      items: items.length,
      full: { accuracy: share(full.map(({ index }, i) => index === items[i]!.label)) },
      skip: {
        accuracy: share(own.map(({ index }, i) => index === items[i]!.label)),
        agreement: share(own.map(({ index }, i) => index === full[i]!.index)),
        blocksSkipped: share(own.flatMap(({ trace }) => trace!.blocks.map(({ ran }) => !ran))),
      },
    });
  });
});
