/** What TypeScript writes of a program and native/program reads has one description on either side: they are equal. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DATA_TYPES } from 'lib/backends/encode.js';
import { OPERATORS } from 'lib/model/program/operator-words.js';
import {
  ACTIVATION_KINDS,
  BINARY_KINDS,
  COMPARE_KINDS,
  LOGICAL_KINDS,
  PAD_MODES,
} from 'lib/model/program/program.js';
import { packageRoot } from 'lib/util/version.js';

const read = (file: string) => readFileSync(join(packageRoot(), 'native', file), 'utf8');

/** kCountIncludePad is countIncludePad here. */
const plain = (constant: string) => constant.replace(/^k(.)/, (_, first: string) => first.toLowerCase());

test('operators and their attributes are those of native/ops/operators.def, in its order', () => {
  const native = [...read('ops/operators.def').matchAll(/^RS_OPERATOR\(([^)]*)\)/gm)].map(([, entry]) => {
    const [constant, name, ...attributes] = entry!.split(',').map((part) => part.trim());
    expect(plain(constant!)).toBe(name);
    return [name, attributes.map(plain)];
  });
  expect(Object.entries(OPERATORS)).toEqual(native);
});

test.each([
  ['ops/tensor.h', 'DType', DATA_TYPES],
  ['kernels/types.h', 'ActivationKind', ACTIVATION_KINDS],
  ['kernels/table.h', 'BinaryKind', BINARY_KINDS],
  ['ops/ops.h', 'CompareKind', COMPARE_KINDS],
  ['ops/ops.h', 'LogicalKind', LOGICAL_KINDS],
  ['ops/ops.h', 'PadMode', PAD_MODES],
])('%s: %s has the same members in the same order', (file, name, expected) => {
  const members = new RegExp(`enum class ${name}[^{]*\\{([^}]*)\\}`).exec(read(file))![1]!;
  expect(members.split(',').map((member) => plain(member.trim()))).toEqual([...expected]);
});
