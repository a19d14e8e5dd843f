// A session that was never released does not keep the process alive.
import { InferenceSession, Tensor } from 'residual-skip';
import { MODEL } from './report.cjs';

const session = await InferenceSession.create(MODEL);
const { logits } = await session.run({
  input: new Tensor('float32', new Float32Array(784), [1, 1, 28, 28]),
});
console.log(logits.dims.join('x'));
