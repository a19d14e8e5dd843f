import { CommanderError } from 'commander';
import { reportFailure } from 'lib/cli/failure.js';
import { paint, processIo, startProgress, watchWork } from 'lib/cli/io.js';
import { asciiPattern, drawPattern, patternLegend } from 'lib/cli/pattern.js';
import { count, formatTable, milliseconds, percent, plural, speedup } from 'lib/cli/table.js';
import { ResidualSkipError } from 'lib/errors.js';
import type { BlockDecision, ItemTrace } from 'lib/skip/trace.js';

const PLAIN = { color: false };
const COLOR = { color: true };

function traceOf(...decisions: [ran: boolean, reason: BlockDecision['reason']][]): ItemTrace {
  const blocks = decisions.map(([ran, reason], index) => ({
    block: `b${index}`,
    index,
    ran,
    score: null,
    threshold: null,
    reason,
  }));
  return { blocks, exits: [], multiplyAddsSkipped: 0, layersSkipped: 0 };
}

describe('pattern', () => {
  const trace = traceOf(
    [true, 'fixed'],
    [true, 'gate'],
    [false, 'gate'],
    [true, 'policy'],
    [false, 'policy'],
  );

  test('has one ASCII character per block', () => {
    expect(asciiPattern(trace)).toBe('#1.#.');
  });

  test('is drawn with a space before every stage but the first', () => {
    expect(drawPattern(PLAIN, trace, new Set([0, 3]))).toBe('#█· #·');
  });

  test('has a legend of the same signs', () => {
    const legend = patternLegend(PLAIN, true);
    for (const sign of new Set(drawPattern(PLAIN, trace, new Set()))) expect(legend).toContain(sign);
    expect(patternLegend(PLAIN, false)).toBe('# ran   · skipped');
  });

  test('is coloured only where colour is welcome', () => {
    expect(drawPattern(COLOR, trace, new Set())).toContain('\u001b[32m█\u001b[39m');
    expect(drawPattern(PLAIN, trace, new Set())).not.toContain('\u001b');
  });
});

describe('table', () => {
  test('aligns columns by what shows, colours aside', () => {
    const columns = [{ title: 'a' }, { title: 'long', align: 'right' as const }, { title: 'z' }];
    const rows = [
      [paint(COLOR, 'green', 'wide'), '1', ''],
      ['x', '22', 'end'],
    ];
    expect(formatTable(PLAIN, columns, rows)).toBe(
      ['a     long  z', '\u001b[32mwide\u001b[39m     1', 'x       22  end', ''].join('\n'),
    );
  });

  test('numbers are short and never exponential', () => {
    expect([0.12345, 12.345, 1234.5].map(milliseconds)).toEqual(['0.123', '12.3', '1235']);
    expect([0, 999, 69_124_608, 4.1e9].map(count)).toEqual(['0', '999', '69.1 M', '4.10 G']);
    expect([999_499, 999_600, 2.5e12].map(count)).toEqual(['999 k', '1.00 M', '2.50 T']);
    expect(percent(0.8573, 2)).toBe('85.73 %');
    expect([plural(1, 'block'), plural(10_000, 'image')]).toEqual(['1 block', '10,000 images']);
  });
});

describe('reportFailure', () => {
  function report(error: unknown, json: boolean) {
    const written: string[] = [];
    const io = {
      out: () => {},
      err: (text: string) => void written.push(text),
      ...PLAIN,
      interactive: false,
    };
    return { code: reportFailure(io, error, json), err: written.join('') };
  }

  test('writes message and code, or JSON', () => {
    const error = new ResidualSkipError('INVALID_DATA', 'cat.jpg is torn');
    expect(report(error, false)).toEqual({ code: 1, err: 'residual-skip: cat.jpg is torn [INVALID_DATA]\n' });
    const { code, err } = report(error, true);
    expect(code).toBe(1);
    expect(JSON.parse(err)).toEqual({ error: { code: 'INVALID_DATA', message: 'cat.jpg is torn' } });
  });

  test('a usage error exits with 2, help with 0', () => {
    expect(
      report(new CommanderError(1, 'commander.unknownOption', "error: unknown option '--x'"), false),
    ).toEqual({
      code: 2,
      err: "residual-skip: unknown option '--x' [INVALID_ARGUMENT]\n",
    });
    expect(report(new CommanderError(0, 'commander.help', '(outputHelp)'), false)).toEqual({
      code: 0,
      err: '',
    });
  });

  test('anything else is a defect', () => {
    const { code, err } = report(new TypeError('x is not a function'), true);
    expect(code).toBe(1);
    expect(JSON.parse(err).error).toMatchObject({ code: 'INTERNAL' });
    expect(err).toContain('x is not a function');
  });
});

test.each([
  [2.417, '2.42x faster'],
  [1.004, 'as fast'],
  [0.996, 'as fast'],
  [0.96, '1.04x slower'],
  [0.5, '2.00x slower'],
])('native is, at %d times the time of its rival, %s', (ratio, text) => {
  expect(speedup(ratio)).toBe(text);
});

describe('progress where the error stream is no terminal', () => {
  beforeEach(() => jest.useFakeTimers());
  afterEach(() => jest.useRealTimers());
  function lines() {
    const written: string[] = [];
    const err = (text: string) => void written.push(text);
    return { written, io: { ...processIo(), err, interactive: false } };
  }

  test('is a line every ten seconds, from the first that pass', () => {
    const { written, io } = lines();
    const { options, stop } = watchWork(io, true);
    options.onProgress({ stage: 'reading', done: 1, total: 4 });
    jest.advanceTimersByTime(9_000);
    options.onProgress({ stage: 'reading', done: 4, total: 4 });
    options.onProgress({ stage: 'calibrating', done: 0, total: 40_000 });
    expect(written).toEqual([]);
    jest.advanceTimersByTime(10_000);
    options.onProgress({ stage: 'calibrating', done: 1000, total: 40_000 });
    jest.advanceTimersByTime(10_000);
    jest.advanceTimersByTime(10_000);
    stop();
    jest.advanceTimersByTime(60_000);
    // 1,000 of 40,000 took 20 s, then 30 s: 39 times as long is left.
    expect(written).toEqual([
      'Calibrating: 0 of 40000\n',
      'Calibrating: 1000 of 40000, about 13 min left\n',
      'Calibrating: 1000 of 40000, about 20 min left\n',
    ]);
  });

  test('names the network, and says nothing more of a stage whose steps are all done', () => {
    const { written, io } = lines();
    const { options, stop } = watchWork(io, true);
    const calibrating = (network: string, done: number) =>
      options.onProgress({ stage: 'calibrating', done, total: 40, network });
    calibrating('front', 40);
    jest.advanceTimersByTime(30_000);
    calibrating('model', 10);
    jest.advanceTimersByTime(10_000);
    // Its next stage begins from nothing.
    calibrating('model', 2);
    jest.advanceTimersByTime(10_000);
    stop();
    expect(written).toEqual([
      'Calibrating model: 10 of 40, about 30 s left\n',
      'Calibrating model: 2 of 40, about 4 min left\n',
    ]);
  });

  test('counts the steps of short commands as well', () => {
    const { written, io } = lines();
    const progress = startProgress(io, 8, 'Recording', true);
    progress.advance();
    progress.advance();
    jest.advanceTimersByTime(10_000);
    progress.stop();
    expect(written).toEqual(['Recording: 2 of 8, about 30 s left\n']);
  });

  test('is nothing beside JSON', () => {
    const { written, io } = lines();
    const { options, stop } = watchWork(io, false);
    options.onProgress({ stage: 'reading', done: 1, total: 4 });
    startProgress(io, 8, 'Recording', false).advance();
    jest.advanceTimersByTime(60_000);
    stop();
    expect(written).toEqual([]);
  });
});
