// What a user sees where no binary fits.
import { InferenceSession } from 'residual-skip';
import { MODEL } from './report.cjs';

const error = await InferenceSession.create(MODEL).then(
  () => undefined,
  (reason) => reason,
);
const session = await InferenceSession.create(MODEL, { backend: 'reference' });
console.log(JSON.stringify({ code: error?.code, message: error?.message, blocks: session.blocks.length }));
