import { LineText, shortFloat } from 'lib/audit/line.js';

function written(write: (line: LineText) => void): string {
  const line = new LineText();
  write(line);
  return line.text().toString('utf8');
}

/** Float32 values of all sizes: random bits, round decimals, whole numbers, and the ends of the range. */
function* floats(): Generator<number> {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  for (let i = 0; i < 20_000; i++) {
    bits[0] = Math.imul(i + 1, 0x9e3779b1);
    yield value[0]!;
  }
  for (let i = 0; i < 5000; i++) yield Math.fround(Math.sin(i) * 10 ** ((i % 40) - 20));
  for (let i = -200; i < 200; i++) yield Math.fround(i / 100);
  yield* [0, -0, 1, -1, 999_999_936, 1e9, 16_777_217, 2 ** -149, 2 ** -126, 3.4028234663852886e38].map(
    Math.fround,
  );
  yield* [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
}

test('short floats are the same float32 and have at most nine digits', () => {
  const wrong = [...floats()].filter((value) => {
    const short = shortFloat(value);
    if (!Number.isFinite(value)) return short !== null;
    // A trace has no use for the sign of zero.
    return !Object.is(Math.fround(short!), value + 0) || Number(short!.toPrecision(9)) !== short;
  });
  expect(wrong).toEqual([]);
  expect(shortFloat(null)).toBeNull();
});

test('a float is written as JSON writes its short decimal, to the same double', () => {
  const wrong = [...floats()].filter((value) => {
    const text = written((line) => line.float(value));
    return !Object.is(JSON.parse(text), shortFloat(value)) || text.length > 25;
  });
  expect(wrong).toEqual([]);
  expect(written((line) => line.float(Math.fround(0.1)))).toBe('0.1');
  expect(written((line) => line.float(Math.fround(-12.5)))).toBe('-12.5');
  expect(written((line) => line.float(Math.fround(1e-6)))).toBe('0.000001');
  expect(written((line) => line.float(null))).toBe('null');
});

test.each([
  [0, 0, '0'],
  [1_790_000_000_123, 0, '1790000000123'],
  [1_000_000_000, 0, '1000000000'],
  [999_999_999, 0, '999999999'],
  [2 ** 53 - 1, 0, '9007199254740991'],
  [0.21234567, 4, '0.2123'],
  [0.5, 6, '0.5'],
  [12, 4, '12'],
  [0.99999999, 6, '1'],
  [-0.00001, 4, '0'],
  [1234.00009, 4, '1234.0001'],
  [1e20, 4, '100000000000000000000'],
])('%d with %d decimals is %s', (value, decimals, text) => {
  expect(written((line) => line.fixed(value, decimals))).toBe(text);
});

test('a line grows past its first room, and holds UTF-8', () => {
  const long = 'ü'.repeat(5000);
  const line = new LineText();
  line.ascii('x'.repeat(4080));
  line.json(long);
  line.ascii('yy');
  expect(line.text().toString('utf8')).toBe(`${'x'.repeat(4080)}"${long}"yy`);
  line.clear();
  line.ascii('again');
  const link = '0123456789abcdef'.repeat(4);
  line.before(link);
  expect(line.withRoom().toString('latin1')).toBe(`${link}again`);
  line.back(2);
  expect(line.text().toString('latin1')).toBe('aga');
});
