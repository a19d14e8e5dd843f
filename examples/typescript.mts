// Typed use: sessions, tensors, traces, errors.   npx tsc typescript.mts && node typescript.mjs
import {
  type BlockDecision,
  InferenceSession,
  ResidualSkipError,
  type SkipPolicy,
  Tensor,
} from 'residual-skip';

/** Runs the blocks before `first`, and leaves the rest to their gates. */
function runFirst(first: number, session: InferenceSession): SkipPolicy {
  const early = session.blocks.slice(0, first);
  return { default: 'gate', blocks: Object.fromEntries(early.map(({ name }) => [name, 'run'] as const)) };
}

function describe({ block, ran, reason, score }: BlockDecision): string {
  return `${block}: ${ran ? 'ran' : 'skipped'} (${reason}${score === null ? '' : `, score ${score.toFixed(2)}`})`;
}

async function main(model: string): Promise<void> {
  const session = await InferenceSession.create(model);
  const input = new Tensor('float32', new Float32Array(784), [1, 1, 28, 28]);
  const { outputs, trace } = await session.runTraced({ input }, { policy: runFirst(7, session) });

  // A tensor's type says what its data is.
  const { logits } = outputs;
  if (logits?.type === 'float32') console.log(`best score ${Math.max(...logits.data).toFixed(2)}`);
  for (const decision of trace.items[0]?.blocks ?? []) console.log(describe(decision));

  const failed = await session.run({ inptu: input }).catch((error: unknown) => error);
  if (failed instanceof ResidualSkipError) console.log(failed.code, failed.message);
  await session.release();
}

await main('node_modules/residual-skip/demo/model.onnx');
