// All that a run of jest puts into the system's temporary folder goes into one folder of its own, which is removed in the end.
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

module.exports = () => {
  const folder = mkdtempSync(join(tmpdir(), 'rskip-'));
  process.env.TMPDIR = folder;
  globalThis.removeTemporary = () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
};
