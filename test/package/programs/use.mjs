import { InferenceSession, Tensor } from 'residual-skip';
import { report } from './report.cjs';

await report({ InferenceSession, Tensor }, process.argv[2]);
