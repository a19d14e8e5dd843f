/** Small networks of texts with seeded weights, in Hugging Face's layout, and texts for them. */
import { folderOf } from './files.js';
import { GraphBuilder, int64s, modelBytes, tensor } from './onnx-builder.js';
import { randomFloats, uniform } from './random.js';

const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]'];
const piece = (id: string) => ({ SpecialToken: { id, type_id: 0 } });

/** tokenizer.json of a BERT with the vocabulary `words`, which begins with the four special tokens. */
export function tokenizerOf(words: readonly string[]): object {
  const special = (content: string) => ({
    [content]: { id: content, ids: [words.indexOf(content)], tokens: [content] },
  });
  const sequence = (id: 'A' | 'B') => ({ Sequence: { id, type_id: id === 'A' ? 0 : 1 } });
  const single = [piece('[CLS]'), sequence('A'), piece('[SEP]')];
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    })),
    normalizer: {
      ...{ type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true },
      ...{ strip_accents: null, lowercase: true },
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single,
      pair: [...single, sequence('B'), { SpecialToken: { id: '[SEP]', type_id: 1 } }],
      special_tokens: { ...special('[CLS]'), ...special('[SEP]') },
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    },
  };
}

/** Numbers of a token. */
export const WIDTH = 16;
const WORDS = [...SPECIAL, ...Array.from({ length: 60 }, (_, i) => `word${i}`)];

/** The words of random texts of 1 to `longest` words. */
export function randomTexts(count: number, seed: number, longest = 12): string[] {
  const random = uniform(seed);
  const whole = (below: number) => Math.floor(random() * below);
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + whole(longest) }, () => `word${whole(60)}`).join(' '),
  );
}

type TextKind = 'classes' | 'tokens' | 'vectors' | 'score';

/**
 * Token embeddings, residual layers x + scale * relu(x A) B, and by kind: `classes`, three logits of the mean of the marked tokens,
 * `score`, one; `tokens`, the tokens themselves; `vectors`, that mean as `sentence_embedding`.
 */
function network(kind: TextKind, layers: number, scale: number): Uint8Array {
  const graph = new GraphBuilder();
  let seed = 1;
  const weights = (shape: readonly number[], by: number, own = seed++) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return graph.constant(
      tensor(
        randomFloats(size, own).map((x) => x * by),
        shape,
      ),
    );
  };
  const ids = graph.input('input_ids', ['batch', 'tokens'], 'int64');
  const mask = graph.input('attention_mask', ['batch', 'tokens'], 'int64');
  let stream = graph.node('Gather', [weights([WORDS.length, WIDTH], 1), ids]);
  for (let layer = 0; layer < layers; layer++) {
    const wide = graph.node('Relu', [graph.node('MatMul', [stream, weights([WIDTH, 4 * WIDTH], 0.5)])]);
    const body = graph.node('MatMul', [wide, weights([4 * WIDTH, WIDTH], scale)]);
    stream = graph.node('Add', [stream, body]);
  }
  if (kind === 'tokens') {
    graph.nodes('Identity', [stream], {}, { outputs: ['last_hidden_state'] });
    return modelBytes(graph.output('last_hidden_state', ['batch', 'tokens', WIDTH]));
  }
  const marks = graph.node('Cast', [graph.node('Unsqueeze', [mask, graph.constant(int64s(2))])], { to: 1 });
  const axes = { axes: [1], keepdims: 0 };
  const sum = graph.node('ReduceMean', [graph.node('Mul', [stream, marks])], axes);
  const pooled = graph.node('Div', [sum, graph.node('ReduceMean', [marks], axes)]);
  const [name, width] =
    kind === 'vectors' ? ['sentence_embedding', WIDTH] : ['logits', kind === 'classes' ? 3 : 1];
  // Networks of fewer layers share all weights that they have.
  const last = kind !== 'vectors' && weights([WIDTH, width], 4, 100);
  if (last) graph.nodes('MatMul', [pooled, last], {}, { outputs: [name] });
  else graph.nodes('Identity', [pooled], {}, { outputs: [name] });
  return modelBytes(graph.output(name, ['batch', width]));
}

/** A folder with such a network. */
export function textNetwork(
  kind: TextKind,
  { layers = 4, scale = 0.05, files = {} as Readonly<Record<string, unknown>> } = {},
): string {
  const labels = kind === 'classes' && { 'config.json': { id2label: { 0: 'bad', 1: 'fair', 2: 'good' } } };
  const json = Object.entries({ 'tokenizer.json': tokenizerOf(WORDS), ...labels, ...files });
  return folderOf({
    'model.onnx': network(kind, layers, scale),
    ...Object.fromEntries(json.map(([name, value]) => [name, JSON.stringify(value)])),
  });
}
