// What a tensor says of itself, another shape of it, its elements as a promise, and its end.
import * as ort from 'onnxruntime-node';

function describe(tensor: ort.Tensor): string {
  const elements: ort.Tensor.DataType = tensor.data;
  return `${tensor.type}[${tensor.dims.join('x')}] of ${tensor.size}, ${elements.length} elements at ${tensor.location}`;
}

const tensor = new ort.Tensor(
  'float32',
  Float32Array.from({ length: 24 }, (_, i) => i),
  [2, 3, 4],
);
const reshaped: ort.TypedTensor<'float32'> = tensor.reshape([4, 6]);
const data = await reshaped.getData(true);
const type: ort.Tensor.Type = reshaped.type;
const shared = reshaped.data === tensor.data;
const lines = [describe(tensor), describe(reshaped), type, data[23], shared];
tensor.dispose();
let disposed = false;
try {
  void tensor.data;
} catch {
  disposed = true;
}
let refused = false;
try {
  reshaped.reshape([5, 5]);
} catch {
  refused = true;
}
console.log(JSON.stringify({ lines, disposed, refused }));
