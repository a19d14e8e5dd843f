import { readFileSync } from 'node:fs';
import { loadModel } from 'lib/model/load.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import * as ops from 'lib/model/lower/operators/index.js';
import { NodeLowering } from 'lib/model/lower/lowering.js';
test.each(['faster_rcnn'])('%s', async (n) => {
  const D = '/tmp/det/out';
  const m = await loadModel(`${D}/${n}.onnx`);
  console.log(m.stages!.map((s) => `${s.isProgram} ${s.graph.nodes.length} in ${s.graph.inputs.length} out ${s.graph.outputs.length} ${s.isProgram ? s.graph.nodes.map((x) => x.op) : ''}`), m.graph.nodes.length, m.graph.outputs.length);
  const s = await InferenceSession.create(`${D}/${n}.onnx`, { threads: 1 });
  const shape = JSON.parse(readFileSync(`${D}/${n}.shape.json`, 'utf8'));
  const d = new Float32Array(readFileSync(`${D}/${n}.input.raw`).buffer);
  const feeds = { [s.inputNames[0]!]: new Tensor('float32', d, shape) };
  await s.run(feeds);
  const times = new Map<string, [number, number]>();
  const orig = NodeLowering.prototype.steps;
  NodeLowering.prototype.steps = function (...a: any) {
    const t = process.cpuUsage().user;
    const r = orig.apply(this, a);
    const e = times.get(`${this.node.op}:${a[0]}`) ?? [0, 0];
    e[0] += (process.cpuUsage().user - t) / 1000; e[1]++;
    times.set(`${this.node.op}:${a[0]}`, e);
    return r;
  };
  const own = new Map<string, [number, number]>();
  const add = (op: string, ms: number) => { const e = own.get(op) ?? [0, 0]; e[0] += ms; e[1]++; own.set(op, e); };
  for (const op of new Set(m.stages!.flatMap((x) => x.graph.nodes.map((y) => y.op)))) {
    const o = ops.findOperator(op) as any;
    if (o.wrapped) continue;
    const lower = o.lower; o.wrapped = true;
    o.lower = function* (node: any): any {
      let t0 = process.cpuUsage().user; let ms = 0;
      const r = lower(node);
      if (typeof r === 'object' && 'next' in r) {
        for (;;) { const { done, value } = r.next(); if (done) { ms += process.cpuUsage().user - t0; add(op, ms / 1000); return typeof value === 'number' ? [value] : value; } ms += process.cpuUsage().user - t0; yield; t0 = process.cpuUsage().user; }
      }
      add(op, (process.cpuUsage().user - t0) / 1000);
      return typeof r === 'number' ? [r] : r;
    };
  }
  const t = process.cpuUsage().user;
  await s.run(feeds);
  console.log([...own].sort((a, b) => b[1][0] - a[1][0]).slice(0, 12));
  console.log('cpu', (process.cpuUsage().user - t) / 1000, [...times].sort((a, b) => b[1][0] - a[1][0]).slice(0, 12));
  NodeLowering.prototype.steps = orig;
  await s.release();
});
