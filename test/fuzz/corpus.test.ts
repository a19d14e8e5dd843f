/** Inputs that fuzzing once found, and tests of the fuzzer's mutations. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadPolicy, ResidualSkipError } from 'lib/index.js';
import { loadModel } from 'lib/model/load.js';
import { findOperator } from 'lib/model/lower/operators/index.js';
import { decodeModelProto, type GraphProto } from 'lib/model/read/proto.js';
import { describeFailure, KINDS, makeCase, runCase } from './cases.js';
import { MODELS } from './models.js';
import { OPERATORS } from './mutate.js';
import { POLICIES } from './policies.js';

const CORPUS = join(__dirname, 'corpus');

for (const name of existsSync(CORPUS) ? readdirSync(CORPUS) : []) {
  test(`${name} fails with an error of this package, or not at all`, async () => {
    const kind = KINDS.find((ending) => name.endsWith(`.${ending}`))!;
    expect(await runCase({ kind, bytes: readFileSync(join(CORPUS, name)) }, true)).toEqual([]);
  });
}

function operatorsOf({ node = [] }: GraphProto): string[] {
  return node.flatMap(({ opType = '', attribute = [] }) => [
    opType,
    ...attribute.flatMap(({ g }) => (g ? operatorsOf(g) : [])),
  ]);
}

test('the models that are mutated run, and have every operator', async () => {
  for (const model of MODELS) expect((await loadModel(model)).graph.nodes.length).toBeGreaterThan(0);
  const used = new Set(MODELS.flatMap((model) => operatorsOf(decodeModelProto(model).graph!)));
  expect(OPERATORS.filter((op) => op !== 'Constant' && !used.has(op))).toEqual([]);
  expect(OPERATORS.filter((op) => op !== 'Constant' && !findOperator(op))).toEqual([]);
});

test('the policies that are mutated are valid', () => {
  for (const policy of POLICIES) expect(loadPolicy(policy)).toEqual(policy);
});

test('a number names a case', () => {
  for (const number of [0, 7, 4711]) expect(makeCase(3, number)).toEqual(makeCase(3, number));
  expect(makeCase(3, 1)).not.toEqual(makeCase(4, 1));
  expect(makeCase(3, 7, true)).toEqual(makeCase(3, 7, true));
  const kinds = new Set(Array.from({ length: 100 }, (_, number) => makeCase(1, number).kind));
  kinds.add(makeCase(1, 0, true).kind);
  expect([...kinds].sort()).toEqual([...KINDS].sort());
});

test('only errors that blame the input are fine', () => {
  expect(describeFailure(new ResidualSkipError('MODEL_INVALID', 'a cycle'))).toBeUndefined();
  expect(describeFailure(new ResidualSkipError('INTERNAL', 'a defect'))).toContain('a defect');
  expect(describeFailure(new RangeError('Invalid array length'))).toContain('RangeError');
});
