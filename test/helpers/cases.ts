declare const SHARE_OF_CASES: number;

/** How many of `count` random cases are tried: all in the long suites, a third in `npm test`; see jest.config.cjs. */
export const cases = (count: number) => Math.ceil(SHARE_OF_CASES * count);
