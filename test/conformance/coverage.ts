/**
 * Operators that are implemented. A case of ONNX's tests whose graph is made of these only is run, or stands in
 * LEFT_OUT; graphs with any other operator have to be refused.
 */
export const OPERATORS: ReadonlySet<string> = words(`
  Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Compress Concat
  ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear
  Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND
  Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish
  Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
  LpNormalization MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
  NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal
  ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
  Relu Reshape Resize RoiAlign Round Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct
  SequenceEmpty SequenceInsert SequenceLength Shape Shrink Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth
  Split SplitToSequence Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
`);

/** Operators that ONNX's tests have no case of; test/unit/model/operators.test.ts has. */
export const WITHOUT_CASES: readonly string[] = ['LpNormalization'];

/** Cases of implemented operators that are not run, by reason. */
const REASONS: Readonly<Record<string, string>> = {
  'its data files hold bfloat16 as bits of uint16': `
    node/test_castlike_BFLOAT16_to_FLOAT node/test_castlike_FLOAT_to_BFLOAT16
    node/test_cast_BFLOAT16_to_FLOAT node/test_cast_FLOAT_to_BFLOAT16
    node/test_castlike_BFLOAT16_to_FLOAT_expanded node/test_castlike_FLOAT_to_BFLOAT16_expanded
  `,
  'float8 is a storage type of quantised models': `
    node/test_castlike_FLOAT8E4M3FNUZ_to_FLOAT node/test_castlike_FLOAT8E4M3FN_to_FLOAT
    node/test_castlike_FLOAT8E5M2FNUZ_to_FLOAT node/test_castlike_FLOAT8E5M2_to_FLOAT
    node/test_castlike_FLOAT_to_FLOAT8E4M3FN node/test_castlike_FLOAT_to_FLOAT8E4M3FNUZ
    node/test_castlike_FLOAT_to_FLOAT8E5M2 node/test_castlike_FLOAT_to_FLOAT8E5M2FNUZ
    node/test_cast_FLOAT16_to_FLOAT8E4M3FN node/test_cast_FLOAT16_to_FLOAT8E4M3FNUZ
    node/test_cast_FLOAT16_to_FLOAT8E5M2 node/test_cast_FLOAT16_to_FLOAT8E5M2FNUZ
    node/test_cast_FLOAT8E4M3FNUZ_to_FLOAT node/test_cast_FLOAT8E4M3FNUZ_to_FLOAT16
    node/test_cast_FLOAT8E4M3FN_to_FLOAT node/test_cast_FLOAT8E4M3FN_to_FLOAT16
    node/test_cast_FLOAT8E5M2FNUZ_to_FLOAT node/test_cast_FLOAT8E5M2FNUZ_to_FLOAT16
    node/test_cast_FLOAT8E5M2_to_FLOAT node/test_cast_FLOAT8E5M2_to_FLOAT16
    node/test_cast_FLOAT_to_FLOAT8E4M3FN node/test_cast_FLOAT_to_FLOAT8E4M3FNUZ
    node/test_cast_FLOAT_to_FLOAT8E5M2 node/test_cast_FLOAT_to_FLOAT8E5M2FNUZ
    node/test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FN
    node/test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FNUZ
    node/test_cast_no_saturate_FLOAT16_to_FLOAT8E5M2
    node/test_cast_no_saturate_FLOAT16_to_FLOAT8E5M2FNUZ
    node/test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FN node/test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FNUZ
    node/test_cast_no_saturate_FLOAT_to_FLOAT8E5M2 node/test_cast_no_saturate_FLOAT_to_FLOAT8E5M2FNUZ
    node/test_castlike_FLOAT8E4M3FNUZ_to_FLOAT_expanded
    node/test_castlike_FLOAT8E4M3FN_to_FLOAT_expanded
    node/test_castlike_FLOAT8E5M2FNUZ_to_FLOAT_expanded node/test_castlike_FLOAT8E5M2_to_FLOAT_expanded
    node/test_castlike_FLOAT_to_FLOAT8E4M3FNUZ_expanded
    node/test_castlike_FLOAT_to_FLOAT8E4M3FN_expanded
    node/test_castlike_FLOAT_to_FLOAT8E5M2FNUZ_expanded node/test_castlike_FLOAT_to_FLOAT8E5M2_expanded
  `,
  'four-bit integers are a storage type of quantised models': `
    node/test_cast_FLOAT16_to_INT4 node/test_cast_FLOAT16_to_UINT4 node/test_cast_FLOAT_to_INT4
    node/test_cast_FLOAT_to_UINT4 node/test_cast_INT4_to_FLOAT node/test_cast_INT4_to_FLOAT16
    node/test_cast_INT4_to_INT8 node/test_cast_UINT4_to_FLOAT node/test_cast_UINT4_to_FLOAT16
    node/test_cast_UINT4_to_UINT8
  `,
  'numbers of 4 bits and float8 are not quantised': `
    node/test_dequantizelinear_e4m3fn node/test_dequantizelinear_e4m3fn_float16
    node/test_dequantizelinear_e4m3fn_zero_point node/test_dequantizelinear_e5m2
    node/test_dequantizelinear_int4 node/test_dequantizelinear_uint4
    node/test_quantizelinear_e4m3fn node/test_quantizelinear_e5m2
    node/test_quantizelinear_int4 node/test_quantizelinear_uint4
  `,
  'its expected results wrap around; the specification has them saturate, and so does onnxruntime': `
    node/test_qlinearmatmul_2D_int8_float16 node/test_qlinearmatmul_2D_int8_float32
    node/test_qlinearmatmul_3D_int8_float16 node/test_qlinearmatmul_3D_int8_float32
  `,
  'its tensors are strings': `
    node/test_castlike_FLOAT_to_STRING node/test_castlike_STRING_to_FLOAT
    node/test_cast_FLOAT_to_STRING node/test_cast_STRING_to_FLOAT
    node/test_castlike_FLOAT_to_STRING_expanded node/test_castlike_STRING_to_FLOAT_expanded
    node/test_equal_string node/test_equal_string_broadcast
  `,
  'its value is a sequence or an optional, no tensor': `
    node/test_if_seq node/test_split_to_sequence_1 node/test_split_to_sequence_2
    node/test_split_to_sequence_nokeepdims
    node/test_identity_opt node/test_identity_sequence node/test_loop13_seq
    node/test_sequence_insert_at_back node/test_sequence_insert_at_front
    node/test_sequence_map_add_1_sequence_1_tensor_expanded node/test_sequence_map_add_2_sequences_expanded
    node/test_sequence_map_extract_shapes_expanded node/test_sequence_map_identity_1_sequence_1_tensor_expanded
    node/test_sequence_map_identity_1_sequence_expanded node/test_sequence_map_identity_2_sequences_expanded
  `,
  'training mode: what is dropped is random, statistics change': `
    node/test_batchnorm_epsilon_training_mode node/test_batchnorm_example_training_mode
    node/test_training_dropout node/test_training_dropout_default
    node/test_training_dropout_default_mask node/test_training_dropout_mask
    node/test_training_dropout_zero_ratio node/test_training_dropout_zero_ratio_mask
  `,
  'it scales by the unrounded length of the output, which neither onnxruntime nor PyTorch does': `
    node/test_resize_downsample_scales_cubic_align_corners
    node/test_resize_downsample_scales_linear_align_corners
  `,
  'it counts what a rounded-up window covers beyond the padding, which neither onnxruntime nor PyTorch does': `
    node/test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
  `,
  'its samples are of volumes, not of images': `
    node/test_gridsample_volumetric_bilinear_align_corners_0 node/test_gridsample_volumetric_bilinear_align_corners_1
    node/test_gridsample_volumetric_nearest_align_corners_0 node/test_gridsample_volumetric_nearest_align_corners_1
  `,
  'it scans each item of a batch, as opset 8 did': `
    node/test_scan_sum
  `,
  'opset 1': `
    node/test_not_2d node/test_not_3d node/test_not_4d
  `,
};

/** Reason by case. */
export const LEFT_OUT: ReadonlyMap<string, string> = new Map(
  Object.entries(REASONS).flatMap(([reason, names]) => [...words(names)].map((name) => [name, reason])),
);

function words(text: string): Set<string> {
  return new Set(text.trim().split(/\s+/));
}
