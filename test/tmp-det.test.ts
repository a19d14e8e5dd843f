import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { InferenceSession, Tensor } from 'lib/index.js';
const D = '/tmp/det/out';
const names = readdirSync(D).filter((f) => f.endsWith('.ref.json')).map((f) => f.replace('.ref.json', ''));
test.each(names)('%s', async (n) => {
  let t = performance.now();
  const s = await InferenceSession.create(`${D}/${n}.onnx`, { threads: 1 });
  const shape = JSON.parse(readFileSync(`${D}/${n}.shape.json`, 'utf8'));
  const ref = JSON.parse(readFileSync(`${D}/${n}.ref.json`, 'utf8'));
  const d = new Float32Array(readFileSync(`${D}/${n}.input.raw`).buffer);
  const lines = [`create ${performance.now() - t}`, JSON.stringify(s.inputMetadata), JSON.stringify(s.outputMetadata), s.model.batchingReason];
  const feeds = { [s.inputNames[0]!]: new Tensor('float32', d, shape) };
  for (let i = 0; i < 3; i++) { t = performance.now();  await s.run(feeds); lines.push(`run ${performance.now() - t}`); }
  const out = await s.run(feeds);
  lines.push(`blocks ${s.blocks.length} ${s.blocks.filter((b) => b.skippable).length}`);
  for (const [name, { dims, data }] of Object.entries<any>(ref)) {
    const o = out[name]!;
    let most = 0;
    for (let i = 0; i < data.length; i++) most = Math.max(most, Math.abs(Number(o.data[i]) - data[i]));
    lines.push(`${name} ${o.type} ${o.dims} ref ${dims} ${most}`);
  }
  console.log(lines.join('\n'));
  await s.release();
});
