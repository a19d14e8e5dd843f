// Fastify with onnxruntime-node behind the same requests as `serve`: binary tensors of the Open Inference Protocol, one input and
// one output. Prints its URL.
//   node bench/serving/peer.mjs MODEL.onnx NAME
import { createRequire } from 'node:module';
import fastify from 'fastify';

/** onnxruntime-node, from bench unless RESIDUAL_SKIP_ONNXRUNTIME names another file beside its node_modules. */
const ort = createRequire(process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? import.meta.url)('onnxruntime-node');

const [file, name] = process.argv.slice(2);
// Requests run beside each other: one thread for each takes the least CPU time.
const session = await ort.InferenceSession.create(file, { intraOpNumThreads: 1, interOpNumThreads: 1 });
const [output] = session.outputNames;

const app = fastify();
app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) =>
  done(null, body),
);
app.post('/v2/models/:model/infer', async ({ headers, body }, reply) => {
  const length = Number(headers['inference-header-content-length']);
  const { id, inputs } = JSON.parse(body.toString('utf8', 0, length));
  const [{ name: input, shape, parameters }] = inputs;
  const bytes = body.subarray(length, length + parameters.binary_data_size);
  const pixels = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const { [output]: scores } = await session.run({ [input]: new ort.Tensor('float32', pixels, shape) });
  const tail = Buffer.from(scores.data.buffer, scores.data.byteOffset, scores.data.byteLength);
  const answered = {
    ...{ model_name: name, model_version: '1', id, parameters: { policy: 'full' } },
    outputs: [
      {
        ...{ name: output, datatype: 'FP32', shape: scores.dims },
        parameters: { binary_data_size: tail.length },
      },
    ],
  };
  const head = Buffer.from(JSON.stringify(answered));
  reply.type('application/octet-stream').header('Inference-Header-Content-Length', head.length);
  return reply.send(Buffer.concat([head, tail]));
});
console.log(JSON.stringify({ url: await app.listen({ port: 0 }) }));
