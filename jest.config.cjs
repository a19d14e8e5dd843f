const { availableParallelism } = require('node:os');

/**
 * What `npm run test:all` adds to `npm test`: suites that need more than `npm ci` installs (ONNX's cases, onnxruntime, a browser,
 * Valkey, nginx), install the package, attack or kill processes or measure their memory, repeat much to show a rate, or are about research.
 */
const LONG = [
  'test/clients/',
  'test/conformance/',
  'test/crosscheck/',
  'test/package/',
  'test/audit/crash.test.ts',
  'test/server/attacks.test.ts',
  'test/server/bulk.test.ts',
  'test/server/deploy.test.ts',
  'test/server/elastic.test.ts',
  'test/server/faults.test.ts',
  'test/server/grpc-limits.test.ts',
  'test/server/page.test.ts',
  'test/server/under-attack.test.ts',
  'test/server/vanishing.test.ts',
  'test/unit/audit/watch-simulation.test.ts',
  'test/unit/bench/protocol.test.ts',
  'test/unit/calibrate/certify-simulation.test.ts',
  'test/unit/calibrate/tasks-simulation.test.ts',
  'test/unit/memory.test.ts',
  'test/unit/speedup/simulation.test.ts',
  'test/unit/speedup/texts.test.ts',
];

/** Suites of random cases: `npm test` tries a third of these, and `npm run test:all` all. */
const RANDOM = [
  'test/unit/backends/agreement.test.ts',
  'test/unit/backends/native-hostile.test.ts',
  'test/unit/kernels/kernels.test.ts',
  'test/unit/model/malformed.test.ts',
];

/** A global is slow to reach from the context in which tests run: these are parameters of every module instead. */
const GLOBALS =
  `Array BigInt BigInt64Array DataView Float32Array Float64Array Infinity Int32Array Int8Array Map Math Number Object Set
  String Uint16Array Uint32Array Uint8Array`.split(/\s+/);

const shared = {
  transform: {
    // Source maps in files of their own: they are larger than the code, which every test file loads again.
    '^.+\\.ts$': [
      '@swc/jest',
      { sourceMaps: true, jsc: { target: 'es2022', parser: { syntax: 'typescript' } } },
    ],
  },
  moduleFileExtensions: ['ts', 'js', 'cjs', 'mjs', 'json', 'node'],
  moduleNameMapper: {
    '^lib/(.*)[.]js$': '<rootDir>/lib/$1.ts',
    '^residual-skip$': '<rootDir>/lib/index.ts',
    '^residual-skip/client$': '<rootDir>/lib/client/index.ts',
    '^residual-skip-server$': '<rootDir>/server/src/index.ts',
  },
  modulePathIgnorePatterns: ['<rootDir>/.cache/'],
  resolver: '<rootDir>/test/resolver.cjs',
  setupFiles: ['<rootDir>/test/setup.cjs'],
  sandboxInjectedGlobals: GLOBALS,
};

/** @type {import('jest').Config} */
module.exports = {
  globalSetup: '<rootDir>/test/global-setup.cjs',
  globalTeardown: '<rootDir>/test/global-teardown.cjs',
  testTimeout: 300_000,
  maxWorkers: Math.max(2, availableParallelism() - 1),
  projects: [
    {
      ...shared,
      displayName: 'short',
      testMatch: ['<rootDir>/test/**/*.test.ts'],
      testPathIgnorePatterns: LONG.map((path) => `<rootDir>/${path}`),
      globals: { SHARE_OF_CASES: 1 / 3 },
    },
    {
      ...shared,
      displayName: 'long',
      testMatch: [...LONG, ...RANDOM].map((path) => `<rootDir>/${path.replace(/\/$/, '/**/*.test.ts')}`),
      globals: { SHARE_OF_CASES: 1 },
    },
  ],
};
