/** @type {import('jest').Config} */
module.exports = {
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' } } }],
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
  testTimeout: 300_000,
};
