export { ResidualSkipError } from '../errors.js';
export { Tensor } from '../tensor/tensor.js';
export {
  Client,
  type ClientOptions,
  type Inference,
  type InferOptions,
  type RemotePrediction,
} from './client.js';
export { DATATYPES, type Datatype, datatypeOf } from './datatypes.js';
