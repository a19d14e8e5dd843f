import type { Io } from 'lib/cli/io.js';
import { runCli } from 'lib/cli/program.js';

export interface Captured {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Output and exit code of a command line without a terminal. */
export async function cli(...args: string[]): Promise<Captured> {
  let out = '';
  let err = '';
  const io: Io = {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    color: false,
    interactive: false,
  };
  const code = await runCli(args, io);
  return { code, out, err };
}

/** Like `cli` with `--json`, for a command that must succeed. */
export async function cliJson(...args: string[]): Promise<unknown> {
  const { code, out, err } = await cli(...args, '--json');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return JSON.parse(out);
}
