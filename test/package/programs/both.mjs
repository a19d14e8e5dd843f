// One program that both imports and requires the package, as where a dependency of an ES module is CommonJS.
import { createRequire } from 'node:module';
import { MODEL } from './report.cjs';

const imported = await import('residual-skip');
const required = createRequire(import.meta.url)('residual-skip');
const session = await required.InferenceSession.create(MODEL);
const input = new imported.Tensor('float32', new Float32Array(784), [1, 1, 28, 28]);
const { logits } = await session.run({ input });
const error = await session.run({ inptu: input }).catch((reason) => reason);
await session.release();
console.log(
  JSON.stringify({
    names: [Object.keys(imported), Object.keys(required)].map((names) =>
      names.filter((name) => name !== '__esModule' && name !== 'module.exports').sort(),
    ),
    classes: ['InferenceSession', 'ResidualSkipError', 'Tensor'].filter(
      (name) => imported[name] !== required[name],
    ),
    tensor: logits instanceof imported.Tensor,
    error: error instanceof imported.ResidualSkipError,
  }),
);
