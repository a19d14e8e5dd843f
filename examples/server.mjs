// An HTTP server that classifies images.   node server.mjs [MODEL] [PORT]
//
//   curl --data-binary @cat.jpg localhost:3000
import { createServer } from 'node:http';
import { ImageClassifier, ResidualSkipError } from 'residual-skip';

const [model = 'node_modules/residual-skip/demo', port = '3000'] = process.argv.slice(2);
const MOST_BYTES = 16e6;

const classifier = await ImageClassifier.from(model);

/** The body of a request; undefined when it is too large. */
async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MOST_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  // A client that leaves needs no answer.
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  try {
    const image = await read(request);
    if (!image) return answer(413, { error: `an image may have at most ${MOST_BYTES} bytes` });
    const options = { topK: 3, trace: true, signal: gone.signal };
    const { top, trace } = await classifier.classify(image, options);
    answer(200, { top, skipped: trace.blocks.filter(({ ran }) => !ran).map(({ block }) => block) });
  } catch (error) {
    const isTheirs = error instanceof ResidualSkipError && error.code === 'INVALID_DATA';
    answer(isTheirs ? 400 : 500, { error: error.message });
  }
});

server.listen(Number(port), () => console.log(`listening on http://localhost:${server.address().port}`));
process.once('SIGTERM', () => server.close(() => classifier.release()));
