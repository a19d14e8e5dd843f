import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DIST, ROOT } from './dist.js';

/** A server in a separate process, started by the command. */
export interface Served {
  readonly pid: number;
  readonly url: string;
  readonly grpcAddress: string | null;
  /** Sends SIGTERM; resolves to the exit code and the error stream's text. */
  stop(): Promise<{ code: number | null; log: string }>;
}

/** `residual-skip serve` of the compiled package, in the root of the checkout, on free ports. */
export async function startServe(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Served> {
  const child = spawn(
    process.execPath,
    [join(DIST, 'cli/main.js'), 'serve', ...args, '--port', '0', '--grpc-port', '0', '--json'],
    { cwd: ROOT, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let log = '';
  child.stderr.on('data', (part) => {
    log += part;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const first = new Promise<string>((resolve) => createInterface(child.stdout).once('line', resolve));
  const listening = await Promise.race([first, ended]);
  if (typeof listening !== 'string') throw new Error(`the server ended with ${listening}: ${log}`);
  const stop = async () => {
    child.kill('SIGTERM');
    return { code: await ended, log };
  };
  return { pid: child.pid!, ...(JSON.parse(listening) as { url: string; grpcAddress: string | null }), stop };
}
