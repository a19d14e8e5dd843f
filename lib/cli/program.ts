import { Command } from 'commander';
import { packageVersion } from '../util/version.js';
import { addAuditCommand } from './audit.js';
import { addBenchCommand } from './bench.js';
import { addCalibrateCommand } from './calibrate.js';
import { addEnqueueCommand } from './enqueue.js';
import { addEvalCommand } from './eval.js';
import { reportFailure } from './failure.js';
import { addInspectCommand } from './inspect.js';
import { type Io, printable } from './io.js';
import { addProfileCommand } from './profile.js';
import { addQuantizeCommand } from './quantize.js';
import { addQueueCommand } from './queue.js';
import { addRecordCommand } from './record.js';
import { addReplayCommand } from './replay.js';
import { addRunCommand } from './run.js';
import { addServeCommand } from './serve.js';
import { addSpeedupCommand } from './speedup.js';
import { addWorkCommand } from './work.js';

const COMMANDS = [
  addInspectCommand,
  addRunCommand,
  addEvalCommand,
  addBenchCommand,
  addProfileCommand,
  addRecordCommand,
  addReplayCommand,
  addAuditCommand,
  addSpeedupCommand,
  addCalibrateCommand,
  addQuantizeCommand,
  addServeCommand,
  addEnqueueCommand,
  addWorkCommand,
  addQueueCommand,
];

/** Runs the command line `args` (without node and script); resolves to the exit code and never rejects. */
export async function runCli(args: readonly string[], streams: Io): Promise<number> {
  // Output contains names of files, blocks and classes, which are not trusted.
  const io: Io = {
    ...streams,
    out: (text) => streams.out(printable(text)),
    err: (text) => streams.err(printable(text)),
  };
  const program = new Command('residual-skip')
    .description('Run residual networks and skip the blocks that an input does not need.')
    .version(packageVersion())
    .showSuggestionAfterError()
    // Failures are reported in one place, below.
    .configureOutput({ writeOut: io.out, writeErr: () => {} })
    .exitOverride();
  for (const add of COMMANDS) add(program, io);
  if (args.length === 0) {
    io.err(program.helpInformation());
    return 2;
  }
  try {
    await program.parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    return reportFailure(io, error, args.includes('--json'));
  }
}
