// Calibrations count how often images have certified, in a file of the user's: tests keep a file of their own.
const { mkdtempSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

process.env.XDG_STATE_HOME = mkdtempSync(join(tmpdir(), 'residual-skip-state-'));
