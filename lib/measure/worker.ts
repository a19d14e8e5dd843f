/**
 * The child process of one runner: loads the model, reports that, then times batches on request until its parent
 * exits.
 */
import { ResidualSkipError } from '../errors.js';
import { openRuntime } from './peers.js';
import type { RunnerConfig, Runtime } from './runner.js';

export type WorkerRequest =
  | { readonly load: RunnerConfig }
  | { readonly run: { batches: number; milliseconds: number } };
export type WorkerReply =
  | { readonly ready: { version: string; loadMs: number; firstMs: number } }
  | { readonly times: readonly number[]; readonly rssMiB: number }
  | { readonly error: { code: string; message: string } };

/** @param open the runtimes that a configuration may name; a script of its own may know others */
export function serveBenchWorker(open: (config: RunnerConfig) => Promise<Runtime> = openRuntime): void {
  let run: (() => Promise<void>) | undefined;
  const reply = (message: WorkerReply) => process.send?.(message);
  process.on('disconnect', () => process.exit(0));
  process.on('message', async (request: WorkerRequest) => {
    try {
      if ('load' in request) {
        const runtime = await open(request.load);
        const start = performance.now();
        const runner = await runtime.load();
        const loaded = performance.now();
        await runner.run();
        run = () => runner.run();
        reply({
          ready: { version: runner.version, loadMs: loaded - start, firstMs: performance.now() - loaded },
        });
        return;
      }
      if (!run)
        throw new ResidualSkipError('INTERNAL', 'benchmark worker: it must load a model before it runs');
      reply({ times: await time(run, request.run), rssMiB: process.memoryUsage().rss / 2 ** 20 });
    } catch (error) {
      const { code = 'INTERNAL', message } = error as ResidualSkipError;
      reply({ error: { code, message } });
    }
  });
}

/** Milliseconds of each batch: at least one, at most `batches`, until `milliseconds` are over. */
async function time(
  run: () => Promise<void>,
  { batches, milliseconds }: { batches: number; milliseconds: number },
) {
  const times: number[] = [];
  const end = performance.now() + milliseconds;
  for (let now = performance.now(); times.length < batches && (times.length === 0 || now < end); ) {
    await run();
    const after = performance.now();
    times.push(after - now);
    now = after;
  }
  return times;
}
