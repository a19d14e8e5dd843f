import { readFileSync } from 'node:fs';
import { InferenceSession, Tensor } from 'lib/index.js';
test('yolo', async () => {
  const s = await InferenceSession.create('/tmp/det/yolo/yolo_nms.onnx', { threads: 1 });
  console.log(s.inputMetadata, s.outputMetadata, s.model);
  const d = new Float32Array(readFileSync('/tmp/det/yolo/yolo_nms.input.raw').buffer);
  const t = performance.now();
  const out = await s.run({ input: new Tensor('float32', d, [1, 3, 64, 64]) });
  console.log(out, performance.now() - t);
  const again = s.runSync({ input: new Tensor('float32', d, [1, 3, 64, 64]) });
  expect(again).toEqual(out);
  await s.release();
});
