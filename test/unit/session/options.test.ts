import { env } from 'lib/session/env.js';
import { notify } from 'lib/session/notifier.js';
import { parseRunOptions, parseRunSyncOptions, parseSessionOptions } from 'lib/session/options.js';
import type { RunEvent, RunObserver } from 'lib/skip/observer.js';
import { nearNames, suggest } from 'lib/util/suggest.js';

describe('session options', () => {
  it('takes every option', () => {
    const options = {
      policy: 'full',
      backend: 'reference',
      threads: 2,
      isa: 'avx2',
      freeDimensionOverrides: { height: 32 },
      observers: [{}, { onRun() {} }],
    } as const;
    expect(parseSessionOptions(options)).toEqual(options);
    expect(parseSessionOptions(undefined)).toEqual({});
  });

  it.each([
    { threads: 1024, isa: 'scalar', precision: 'bfloat16', policy: { blocks: {} } },
    { threads: undefined },
    Object.create({ threads: 2 }),
  ])('checks the usual ones without a schema, and takes what the schema takes: %p', (options) => {
    const { threads, ...rest } = options;
    const further = { ...rest, ...(threads && { threads }), logId: 'the schema checks it' };
    expect({ ...parseSessionOptions(options), logId: further.logId }).toEqual(parseSessionOptions(further));
  });

  it.each<[unknown, string]>([
    [{ polcy: 'full' }, "options: unknown key 'polcy'; did you mean 'policy'?"],
    [{ reference: 'float.onnx' }, "options: unknown key 'reference'; it is called 'original' now"],
    [{ executionProviders: ['cpu', 'cuda'] }, "options.executionProviders.1: 'cuda' is not available"],
    [{ executionProviders: [{ name: 'webgpu' }] }, "'webgpu' is not available"],
    [
      { preferredOutputLocation: 'gpu-buffer' },
      'options.preferredOutputLocation: outputs are in main memory',
    ],
    [{ enableGraphCapture: true }, "unknown key 'enableGraphCapture'"],
    [{ intraOpNumThreads: -1 }, 'options.intraOpNumThreads'],
    [{ backend: 'gpu' }, "options.backend: expected one of 'native', 'reference'"],
    [{ threads: 0 }, 'options.threads: expected an integer in 1..1024'],
    [{ threads: 1.5 }, 'options.threads'],
    [{ threads: Number.NaN }, 'options.threads'],
    [{ threads: '2' }, 'options.threads'],
    [
      { isa: 'sse' },
      "options.isa: expected one of 'scalar', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'amx', 'neon', 'neondot'",
    ],
    [{ policy: 3 }, "options.policy: expected 'model', 'full'"],
    [{ observers: {} }, 'options.observers: expected an array'],
    [{ observers: [{ onRun: 1 }] }, 'options.observers.0: expected an object with a method onRun'],
    [{ freeDimensionOverrides: { h: -1 } }, 'options.freeDimensionOverrides.h: expected an integer'],
    ['full', 'options: '],
    [{ threads: 0, isa: 'x' }, '; options.isa'],
    [{ maxMemory: 0 }, 'options.maxMemory: expected an integer in 1..9007199254740991'],
    [{ maxMemory: '1GB' }, 'options.maxMemory'],
  ])('refuses %j', (options, message) => {
    expect(() => parseSessionOptions(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});

describe("onnxruntime's session options", () => {
  it('mean the same: intraOpNumThreads is threads, 0 the default, and the provider is the CPU', () => {
    expect(parseSessionOptions({ intraOpNumThreads: 3 })).toEqual({ threads: 3 });
    expect(parseSessionOptions({ intraOpNumThreads: 0 })).toEqual({});
    expect(parseSessionOptions({ intraOpNumThreads: 3, threads: 2 })).toEqual({ threads: 2 });
    expect(() => parseSessionOptions({ executionProviders: ['cpu', { name: 'cpu' }] })).not.toThrow();
  });

  it('are accepted where they have no effect, with one warning for each', () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const ignored = { graphOptimizationLevel: 'all', enableCpuMemArena: true, executionMode: 'sequential' };
    parseSessionOptions(ignored);
    parseSessionOptions(ignored);
    const named = warned.mock.calls.map(([message]) =>
      Object.keys(ignored).find((name) => String(message).includes(name)),
    );
    const { logLevel } = env;
    env.logLevel = 'error';
    parseSessionOptions({ logId: 'quiet' });
    env.logLevel = logLevel;
    expect(warned).toHaveBeenCalledTimes(named.length);
    warned.mockRestore();
    expect(named).toEqual(Object.keys(ignored));
  });
});

describe('run options', () => {
  it('takes every option', () => {
    const options = {
      policy: { blocks: {} },
      signal: new AbortController().signal,
      terminate: false,
      tag: 'a run',
      logSeverityLevel: 2,
      logVerbosityLevel: 0,
    };
    expect(parseRunOptions(options)).toEqual(options);
  });

  it.each<[unknown, string]>([
    [{ trace: true }, 'options.trace: runTraced and runTracedSync return traces'],
    [{ terminate: 1 }, 'options.terminate: expected true or false'],
    [{ signal: {} }, 'options.signal: expected an AbortSignal'],
    [{ polcy: 'full' }, "did you mean 'policy'?"],
  ])('refuses %j', (options, message) => {
    expect(() => parseRunOptions(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });

  it('takes none, or a policy alone, without a schema, which copies and takes as long as a small network', () => {
    for (const options of [{}, { policy: undefined }, { policy: 'full' }]) {
      expect(parseRunSyncOptions(options)).toBe(options);
      expect(parseRunOptions(options)).toBe(options);
    }
    for (const given of [[], 5, 'full']) {
      expect(() => parseRunSyncOptions(given)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
  });

  it('has no signal in runSync', () => {
    expect(() => parseRunSyncOptions({ signal: new AbortController().signal })).toThrow(
      "unknown key 'signal'",
    );
  });
});

describe('suggestions', () => {
  it('finds near names, nearest first', () => {
    expect(nearNames('treads', ['threads', 'trace', 'isa'])).toEqual(['threads']);
    expect(nearNames('LAYER1', ['layer1.0', 'stem'])).toEqual(['layer1.0']);
    expect(nearNames('zzzz', ['threads'])).toEqual([]);
  });

  it('lists the choices when none is near', () => {
    expect(suggest('zzzz', ['a', 'b'])).toBe("expected one of 'a', 'b'");
    expect(suggest('zzzz', [])).toBe('there are none');
  });
});

describe('observers', () => {
  const event = { milliseconds: 1 } as RunEvent;

  it('get the event in order', async () => {
    const seen: string[] = [];
    const observers = [{ onRun: () => void seen.push('a') }, {}, { onRun: () => void seen.push('b') }];
    await notify(observers, (observer: RunObserver) => observer.onRun?.(event));
    expect(seen).toEqual(['a', 'b']);
  });

  it('become a warning when they fail, at once or later', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const seen = jest.fn();
    const observers: RunObserver[] = [
      {
        onRun() {
          throw new Error('broken now');
        },
      },
      { onRun: async () => Promise.reject(new Error('broken later')) },
      { onRun: seen },
    ];
    await notify(observers, (observer) => observer.onRun?.(event));
    expect(seen).toHaveBeenCalledWith(event);
    expect(warned.mock.calls.map(([message]) => String(message))).toEqual([
      expect.stringContaining('broken now'),
      expect.stringContaining('broken later'),
    ]);
    warned.mockRestore();
  });
});
