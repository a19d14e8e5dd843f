// Loads an addon and compares its results, with each form of the AVX-512 kernels, with the expected ones, bit for bit:
//
//   node scripts/check-addon.mjs build             the one that `npm run build:native` made
//   node scripts/check-addon.mjs linux-x64-glibc   a prebuilt one
//   node scripts/check-addon.mjs linux-arm64-glibc qemu-aarch64 -L /usr/aarch64-linux-gnu path/to/node
//
// The arguments after the name are the command that runs Node.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
/** Results have the same bits on every platform. An intended change of a sum needs new hashes here. */
const EXPECTED =
  'dfbd0f132182e30336823e7e833a1390175344d398d1fe8be1656d7588259046 231d9ce7d1c08264438b6fe2ba0e074f356e2403b633c6ad11eb54e4bfbd29af';

const [name, ...command] = process.argv.slice(2);
const addon = name === 'build' ? 'build/Release' : `prebuilds/${name}`;
const folder = mkdtempSync(join(tmpdir(), 'residual-skip-addon-'));
try {
  const parts = {
    dist: 'dist',
    demo: 'demo',
    cifar10: 'models/cifar10-resnet14-exits',
    [addon]: addon,
    'package.json': 'package.json',
    'addon-hash.cjs': 'scripts/addon-hash.cjs',
  };
  for (const [to, from] of Object.entries(parts))
    cpSync(join(ROOT, from), join(folder, to), { recursive: true });
  for (const dependency of Object.keys(JSON.parse(readFileSync(join(ROOT, 'package.json'))).dependencies)) {
    const source = join(ROOT, 'node_modules', dependency);
    cpSync(source, join(folder, 'node_modules', dependency), { recursive: true });
  }
  const [node, ...args] = command.length > 0 ? command : [process.execPath];
  const hashOf = (form) => {
    const env = { ...process.env, RESIDUAL_SKIP_BROADCAST: form };
    const output = execFileSync(node, [...args, 'addon-hash.cjs'], { cwd: folder, encoding: 'utf8', env });
    return JSON.parse(output.trim().split('\n').at(-1));
  };
  const results = (name.includes('arm64') ? [''] : ['memory', 'register']).map(hashOf);
  const { platform, isas } = results[0];
  const others = results.flatMap(({ hashes }) => hashes).filter((hash) => hash !== EXPECTED);
  const passed = others.length === 0;
  console.log(
    `${name}: ${platform}, ${isas.join(', ')}: ${passed ? 'the expected bits' : `other bits: ${others.join('; ')}`}`,
  );
  console.log(passed ? '1 passed, 0 failed' : '0 passed, 1 failed');
  process.exitCode = passed ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}
