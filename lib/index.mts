/** The face for ES modules: `import` and `require` load one implementation, so that classes and sessions can be shared. */
import { env, InferenceSession, Tensor } from './index.js';

export * from './index.js';
export default { env, InferenceSession, Tensor };
