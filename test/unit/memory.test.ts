import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { folderOf, removeFolders } from '../helpers/files.js';
import { GraphBuilder, modelBytes, tensor } from '../helpers/onnx-builder.js';
import { randomFloats } from '../helpers/random.js';

const root = join(__dirname, '../..');
const built = existsSync(join(root, 'dist/index.js'));

const CHANNELS = 512;
const MIB = 2 ** 20;
/** Of the file's 3x3 weights, and of Winograd's 6x6. */
const WEIGHTS_MIB = (CHANNELS * CHANNELS * 9 * 4) / MIB;
const PACKED_MIB = 4 * WEIGHTS_MIB;

/** One convolution on a small map: nearly all of its memory is weights. */
function heavyModel(): string {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['batch', CHANNELS, 8, 8]);
  const weight = graph.constant(tensor(randomFloats(CHANNELS * CHANNELS * 9, 1), [CHANNELS, CHANNELS, 3, 3]));
  const y = graph.node('Conv', [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  return join(
    folderOf({ 'model.onnx': modelBytes(graph.output(y, ['batch', CHANNELS, 8, 8])) }),
    'model.onnx',
  );
}

interface Growth {
  readonly cycles: number;
  readonly session: number;
  readonly overlapping: number;
}

/** glibc gives freed memory back at once. Otherwise it keeps twice as much as the largest block that was ever freed, which looks like growth. */
const GIVEN_BACK = { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '131072' };

/** What bench/memory.mjs measures of a process of its own. */
function measure(model: string, ...options: string[]): Growth {
  const args = ['--expose-gc', join(root, 'bench/memory.mjs'), model, ...options];
  const env = { ...process.env, ...GIVEN_BACK };
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

/** Small inputs and outputs, and maps of 32 MiB in between. */
function wideModel(): string {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['batch', 16, 16, 16]);
  const sizes = graph.constant(tensor(Float32Array.of(1, 1, 45, 45), [4]));
  const weight = graph.constant(tensor(randomFloats(16 * 16, 1), [16, 16, 1, 1]));
  const wide = graph.node('Resize', [x, '', sizes], { mode: 'nearest' });
  const conv = graph.node('Conv', [wide, weight], { kernel_shape: [1, 1] });
  const y = graph.node('GlobalAveragePool', [conv]);
  return join(folderOf({ 'model.onnx': modelBytes(graph.output(y, ['batch', 16, 1, 1])) }), 'model.onnx');
}

/**
 * By how many MiB a batch of eight on eight threads makes a process grow beyond what it takes for one item.
 * Linux counts the parent's pages in `maxRSS` of a new process, so its own peak is read from /proc there.
 */
function growthOfBatch(model: string, maxMemory?: number): number {
  const script = `const { InferenceSession, Tensor } = require(process.argv[1]);
    const [model, maxMemory] = process.argv.slice(2);
    const peak = () => {
      if (process.platform !== 'linux') return process.resourceUsage().maxRSS / 1024;
      const status = require('node:fs').readFileSync('/proc/self/status', 'utf8');
      return Number(/^VmHWM:\\s*(\\d+) kB$/m.exec(status)[1]) / 1024;
    };
    (async () => {
      const options = { threads: 8, maxMemory: maxMemory && Number(maxMemory) };
      const session = await InferenceSession.create(model, options);
      const run = (items) => session.run({ x: new Tensor('float32', new Float32Array(items * 16 ** 3), [items, 16, 16, 16]) });
      await run(1);
      const before = peak();
      await run(8);
      console.log(peak() - before);
    })();`;
  const args = ['-e', script, join(root, 'dist/index.js'), model, ...(maxMemory ? [String(maxMemory)] : [])];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toBe('');
  return Number(stdout);
}

afterAll(removeFolders);

// `npm run compile` makes dist; a checkout that was only type-checked has none.
(built ? describe : describe.skip)('the resident size', () => {
  it('stays flat over 100 sessions', () => {
    const model = join(root, 'models/mnist-resnet20/model.onnx');
    const bound = 12;
    expect(measure(model).cycles).toBeLessThan(bound);
    // The measurement sees what a session holds: a quarter of them, kept, are far beyond the bound.
    expect(measure(model, '--cycles', '25', '--keep').cycles).toBeGreaterThan(4 * bound);
  });

  it('holds packed weights once, whatever runs overlap, and the weights of the file no more', () => {
    const { session, overlapping } = measure(heavyModel(), '--cycles', '3');
    expect(session).toBeLessThan(PACKED_MIB + WEIGHTS_MIB);
    expect(overlapping).toBeLessThan(WEIGHTS_MIB);
  });

  it('grows by no more than one item for a batch of which maxMemory holds one at a time', () => {
    const model = wideModel();
    const bound = 32;
    expect(growthOfBatch(model, 100 * MIB)).toBeLessThan(bound);
    // The measurement sees items side by side, however many of them the machine's load lets run at a time.
    expect(growthOfBatch(model)).toBeGreaterThan(bound);
  });
});
