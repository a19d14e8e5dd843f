// Builds the addon for this machine into build/Release, with node-gyp and a C++20 compiler. `npm run build:native` does it in
// a checkout, `npm explore residual-skip -- npm run build:native` where the package is installed.
const { execFileSync } = require('node:child_process');
const { copyFileSync, existsSync, rmSync } = require('node:fs');
const { join, resolve } = require('node:path');

const root = resolve(__dirname, '..');

/** The checkout's own node-gyp, or the one that npm brings along. */
function nodeGyp() {
  try {
    return require.resolve('node-gyp/bin/node-gyp.js');
  } catch {
    const bundled = process.env.npm_config_node_gyp;
    if (bundled && existsSync(bundled)) return bundled;
    throw new Error('node-gyp was not found; run this by `npm run build:native`, or install node-gyp');
  }
}

// The packed package keeps binding.gyp here: npm runs node-gyp where it is at the top.
const packed = join(__dirname, 'binding.gyp');
const recipe = join(root, 'binding.gyp');
const isPacked = existsSync(packed);
if (isPacked) copyFileSync(packed, recipe);
try {
  const args = ['configure', 'build', '--directory', root, '-j', 'max', ...process.argv.slice(2)];
  execFileSync(process.execPath, [nodeGyp(), ...args], { stdio: 'inherit' });
} finally {
  if (isPacked) rmSync(recipe);
}
