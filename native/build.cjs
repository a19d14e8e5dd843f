// Builds the addon for this machine into build/Release, with node-gyp and a C++20 compiler. `npm run build:native` does it in
// a checkout, `npm explore residual-skip -- npm run build:native` where the package is installed.
const { execFileSync } = require('node:child_process');
const { copyFileSync, existsSync, mkdirSync } = require('node:fs');
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

execFileSync(
  process.execPath,
  [nodeGyp(), 'rebuild', '--directory', __dirname, '-j', '2', ...process.argv.slice(2)],
  {
    stdio: 'inherit',
  },
);
mkdirSync(join(root, 'build/Release'), { recursive: true });
copyFileSync(
  join(__dirname, 'build/Release/residual_skip.node'),
  join(root, 'build/Release/residual_skip.node'),
);
