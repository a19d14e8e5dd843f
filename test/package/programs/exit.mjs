// Leaves the process while runs are under way and nothing was released.
import { InferenceSession, Tensor } from 'residual-skip';
import { MODEL } from './report.cjs';

const session = await InferenceSession.create(MODEL, { threads: 2 });
const input = new Tensor('float32', new Float32Array(256 * 28 * 28), [256, 1, 28, 28]);
for (let run = 0; run < 4; run++) session.run({ input }).then(() => console.log('ended'));
setImmediate(() => {
  console.log('leaving');
  process.exit(0);
});
