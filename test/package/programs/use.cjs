const { InferenceSession, Tensor } = require('residual-skip');
const { report } = require('./report.cjs');

report({ InferenceSession, Tensor }, process.argv[2]);
