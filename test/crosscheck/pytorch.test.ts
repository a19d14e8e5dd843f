/** The program of docs/pytorch.md, where PyTorch is installed: what it writes runs, and answers as the network does in PyTorch. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImageClassifier } from 'lib/classify/image-classifier.js';
import { inspect } from 'lib/inspect/inspect.js';
import { type Tensor, toFloat32 } from 'lib/tensor/tensor.js';
import sharp from 'sharp';
import { cli } from '../helpers/cli.js';
import { ROOT } from '../helpers/dist.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { commandsOf, inLanguage, snippetsOf } from '../helpers/snippets.js';

const PYTHON = '/usr/bin/python3';
const IMAGE = join(ROOT, 'examples/images/cat-0000.jpg');
const hasTorch =
  existsSync(PYTHON) && spawnSync(PYTHON, ['-c', 'import torch, torchvision, PIL']).status === 0;
const page = snippetsOf('docs/pytorch.md');

/** What torchvision prepares of the image, and the network's answer to it. */
const EXPECTED = `
from PIL import Image
prepared = weights.transforms()(Image.open("picture.png").convert("RGB")).unsqueeze(0)
with torch.no_grad():
    json.dump({"pixels": prepared.flatten().tolist(), "logits": network(prepared).flatten().tolist()}, open("expected.json", "w"))
`;

/** Three gradients with grain, so that every pixel counts. */
async function writePicture(file: string): Promise<void> {
  const [width, height] = [400, 300];
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      data.set(
        [(255 * x) / width, (255 * y) / height, (211 * (x + y)) / (width + height) + ((x * y) % 44)],
        3 * (y * width + x),
      );
    }
  }
  await sharp(data, { raw: { width, height, channels: 3 } }).toFile(file);
}

afterAll(removeFolders);

(hasTorch ? describe : describe.skip)('the program for PyTorch', () => {
  const folder = folderOf({});
  const network = join(folder, 'resnet18');
  beforeAll(async () => {
    await writePicture(join(folder, 'picture.png'));
    copyFileSync(IMAGE, join(folder, 'cat.jpg'));
    const [{ code } = { code: '' }] = page.filter(inLanguage('python'));
    // Without a network to download weights from.
    const offline = code.replace('resnet18(weights=weights)', 'resnet18(weights=None)');
    expect(offline).not.toBe(code);
    const { status, stderr } = spawnSync(PYTHON, ['-c', `${offline}\n${EXPECTED}`], {
      cwd: folder,
      encoding: 'utf8',
    });
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  });

  test('writes a folder with eight blocks, labels, and the name of its writer', async () => {
    const { blocks, metadata, inputs } = await inspect(network);
    expect(blocks).toHaveLength(8);
    expect(metadata.producer).toBe('pytorch');
    expect(inputs).toEqual([{ name: 'pixels', dtype: 'float32', shape: ['batch', 3, 224, 224] }]);
    await using classifier = await ImageClassifier.from(network);
    expect(classifier.labels[0]).toBe('tench');
    expect(classifier.preprocessorKnown).toBe(true);
  });

  test('prepares pixels as torchvision does, and answers the same', async () => {
    const expected: { pixels: number[]; logits: number[] } = JSON.parse(
      readFileSync(join(folder, 'expected.json'), 'utf8'),
    );
    await using classifier = await ImageClassifier.from(network);
    const prepared = await classifier.prepare(join(folder, 'picture.png'));
    expect(prepared.dims).toEqual([1, 3, 224, 224]);
    // The same levels of 256, each of which is 0.017; torchvision normalises in float32.
    const differences = expected.pixels.map((value, i) => Math.abs(value - prepared.data[i]!));
    expect(differences.reduce((most, value) => Math.max(most, value), 0)).toBeLessThan(1e-5);
    const { logits } = await classifier.session.run(classifier.feeds(prepared));
    const scale = Math.max(...expected.logits.map(Math.abs));
    for (const [i, value] of toFloat32(logits as Tensor<'float32'>).data.entries()) {
      expect(Math.abs(value - expected.logits[i]!) / scale).toBeLessThan(1e-3);
    }
  });

  const commands = page.filter(inLanguage('sh')).flatMap(commandsOf);
  test.each(commands.filter((command) => command.startsWith('residual-skip run')))('%s', async (command) => {
    const args = command.split(/\s+/).slice(1);
    const paths = args.map((arg) => (/^(resnet18|cat\.jpg)/.test(arg) ? join(folder, arg) : arg));
    const { code, err } = await cli(...paths);
    expect({ code, err }).toEqual({ code: 0, err: '' });
  });
});
