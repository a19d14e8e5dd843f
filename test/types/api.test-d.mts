// Compiled by `npm run typecheck`, never run.
import { expectTypeOf } from 'expect-type';
import * as ort from 'onnxruntime-common';
import {
  type BlockInfo,
  type ErrorCode,
  InferenceSession,
  type ResidualSkipError,
  type SkipPolicy,
  type SkipTrace,
  Tensor,
  type TensorMap,
  type TracedRun,
} from '../../lib/index.js';

const session = await InferenceSession.create('model.onnx', { policy: 'model', threads: 2, isa: 'avx2' });
const x = new Tensor('float32', new Float32Array(4), [1, 4]);
const flag = Math.random() > 0.5;

expectTypeOf(x).toEqualTypeOf<Tensor<'float32'>>();
expectTypeOf(x.data).toEqualTypeOf<Float32Array>();
expectTypeOf(new Tensor(new BigInt64Array(1))).toEqualTypeOf<Tensor<'int64'>>();
expectTypeOf(new Tensor([true])).toEqualTypeOf<Tensor<'bool'>>();
expectTypeOf(new Tensor('int64', [1n]).data).toEqualTypeOf<BigInt64Array>();
expectTypeOf(x.reshape([4])).toEqualTypeOf<Tensor<'float32'>>();
// @ts-expect-error no such type
new Tensor('float16', [1]);
// @ts-expect-error the array does not fit the type
new Tensor('float32', new Int32Array(1));
// @ts-expect-error numbers are no booleans
new Tensor('bool', [1]);

expectTypeOf(await session.run({ x })).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, { trace: false })).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, ['y'])).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, { y: null, z: x })).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, { trace: true })).toEqualTypeOf<TracedRun>();
expectTypeOf(await session.run({ x }, ['y'], { trace: true, policy: 'full' })).toEqualTypeOf<TracedRun>();
expectTypeOf(session.runSync({ x })).toEqualTypeOf<TensorMap>();
expectTypeOf(session.runSync({ x }, { trace: true }).trace).toEqualTypeOf<SkipTrace>();
expectTypeOf(await session.run({ x }, { trace: flag })).toEqualTypeOf<TensorMap | TracedRun>();
expectTypeOf(session.runSync({ x }, ['y'], { trace: flag })).toEqualTypeOf<TensorMap | TracedRun>();
// Tensors of onnxruntime are taken as they are.
await session.run({ x: new ort.Tensor('float32', new Float32Array(4), [1, 4]) });
// @ts-expect-error runSync has no signal
session.runSync({ x }, { signal: new AbortController().signal });
// @ts-expect-error misspelt
await InferenceSession.create('model.onnx', { polcy: 'full' });
// @ts-expect-error an array is no tensor
await session.run({ x: [1, 2] });

expectTypeOf<SkipTrace['items'][number]['blocks'][number]['reason']>().toEqualTypeOf<
  'gate' | 'confidence' | 'policy' | 'fixed' | 'tripped' | 'exit' | 'guard'
>();
expectTypeOf(session.blocks).toEqualTypeOf<readonly BlockInfo[]>();
expectTypeOf(session.inputMetadata[0]!.shape).toEqualTypeOf<readonly (number | string)[]>();
expectTypeOf(session).toExtend<AsyncDisposable>();
expectTypeOf<ResidualSkipError['code']>().toEqualTypeOf<ErrorCode>();

const policy = {
  default: 'skip',
  blocks: { 'layer1.0': { threshold: 0.5 }, 3: 'run' },
} as const satisfies SkipPolicy;
await InferenceSession.create(new Uint8Array(), { policy });
// @ts-expect-error no such action
await InferenceSession.create(new ArrayBuffer(1), { policy: { blocks: { a: 'maybe' } } });
