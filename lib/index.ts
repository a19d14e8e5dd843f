import { env } from './session/env.js';
import { InferenceSession } from './session/session.js';
import { Tensor, toFloat32 } from './tensor/tensor.js';

export type { Checkpoint } from './audit/checkpoint.js';
export type { Drift, DriftKind } from './audit/drift-monitor.js';
export { storedInputs } from './audit/inputs.js';
export { type AuditLog, auditLog } from './audit/log.js';
export type { AuditLogOptions, AuditLogStats } from './audit/log-options.js';
export {
  type AuditEntry,
  type AuditProblem,
  type AuditTrace,
  type ReadAuditOptions,
  readAudit,
} from './audit/read.js';
export type { AuditEnergy, AuditHeader, AuditItem } from './audit/record.js';
export { type RenderAuditOptions, renderAudit } from './audit/render.js';
export { type ReplayDifference, type ReplayItem, type ReplayReport, replayAudit } from './audit/replay.js';
export { type Watch, watch } from './audit/watch.js';
export type { WatchOptions, WatchStats } from './audit/watch-options.js';
export { returnFreedMemory } from './backends/addon.js';
export { calibrate } from './calibrate/calibrate.js';
export type { CalibrateOptions, Limits } from './calibrate/options.js';
export {
  calibrateRanking,
  type RankingCalibration,
  type RankingList,
  type RankingOptions,
} from './calibrate/ranking.js';
export { type RenderCalibrationOptions, renderCalibration } from './calibrate/report/report.js';
export type {
  Calibration,
  ClassResult,
  Contribution,
  Example,
  SettingResult,
} from './calibrate/report/result.js';
export type { Prediction } from './classify/class-scores.js';
export type { Data } from './classify/data-model.js';
export {
  Embedder,
  type EmbedderOptions,
  type Embedding,
  type EmbedInput,
  type EmbedOptions,
  type Pooling,
} from './classify/embedder.js';
export type { FeedSource, LabelledFeeds } from './classify/feed-source.js';
export {
  type ClassifyOptions,
  type ImageClassification,
  ImageClassifier,
} from './classify/image-classifier.js';
export type { ImageClassifierOptions } from './classify/image-options.js';
export type { ImageSource, SharpLike } from './classify/image-source.js';
export type { DataOptions, Images, LabelledImage } from './classify/images.js';
export {
  type DetectedObject,
  type DetectOptions,
  ObjectDetector,
  type ObjectDetectorOptions,
} from './classify/object-detector.js';
export {
  type CertifiedMargins,
  type Margins,
  type RankedDocument,
  type RankOptions,
  Reranker,
} from './classify/reranker.js';
export {
  Segmentation,
  type SegmentedClass,
  Segmenter,
  type SegmentOptions,
} from './classify/segmenter.js';
export type { TaskName, TaskOptions } from './classify/task.js';
export {
  type ClassifyTextOptions,
  type TextClassification,
  TextClassifier,
  type TextClassifierOptions,
} from './classify/text-classifier.js';
export type { TextInput } from './classify/text-input.js';
export type { TextModelOptions, TextRunOptions } from './classify/text-model.js';
export type { LabelledText, Texts } from './classify/texts.js';
export type { WorkOptions } from './classify/work.js';
export type { RawImage } from './data/image.js';
export { decodingBytes, pixelsOf } from './data/image-header.js';
export { type PreparedImage, Preprocessor } from './data/preprocess.js';
export type { ImageInput, PreprocessorConfig } from './data/preprocessor-config.js';
export type { PreprocessorPreset } from './data/presets.js';
export { codeOfWriting, ERROR_CODES, type ErrorCode, ResidualSkipError } from './errors.js';
export {
  type InspectedBlock,
  type InspectedExit,
  type InspectedPort,
  type Inspection,
  type InspectOptions,
  inspect,
} from './inspect/inspect.js';
export type { Shapes } from './inspect/shapes.js';
export type { EnergyReport } from './measure/energy.js';
export {
  type EvaluatedRung,
  type EvaluateOptions,
  type Evaluation,
  evaluate,
  type MeasuredLoss,
} from './measure/evaluate.js';
export type { LatencySummary, PairedChange } from './measure/statistics.js';
export type { CompareKind, GateForm, ShortcutKind } from './model/program/program.js';
export { locateModel, type ModelLocation } from './model/read/file.js';
export type { ModelMetadata } from './model/read/metadata.js';
export { type Quantization, type QuantizeOptions, quantize } from './quantize/quantize.js';
export type { Env } from './session/env.js';
export type { Feeds } from './session/feeds.js';
export type { ModelInfo, TensorMetadata } from './session/metadata.js';
export { onnxruntimeBackend } from './session/onnxruntime-backend.js';
export type { Isa, RunOptions, RunSyncOptions, SessionOptions } from './session/options.js';
export type { Fetches } from './session/outputs.js';
export type { PolicyInfo } from './session/own-policy.js';
export type { Profile, ProfileEvent } from './session/profile.js';
export type { Progress } from './session/progress.js';
export type { TracedRun } from './session/session.js';
export type { ModelSource } from './session/source.js';
export type { BlockInfo } from './skip/block-info.js';
export type { FrontSpec } from './skip/fronts.js';
export type { Guard } from './skip/guards.js';
export { loadPolicy, type PolicySource } from './skip/load-policy.js';
export type {
  AuditLines,
  ItemRequest,
  RunContext,
  RunEvent,
  RunObserver,
  SessionControl,
  SessionStats,
  TensorMap,
} from './skip/observer.js';
export { type BlockAction, hashPolicy, type SkipPolicy } from './skip/policy.js';
export type { CustomItem, CustomLoss } from './skip/run-loss.js';
export type { ScoreDistribution, ScoreDistributions } from './skip/score-distribution.js';
export {
  type BlockDecision,
  type ExitDecision,
  type ItemDecisions,
  type ItemTrace,
  SKIP_REASONS,
  type SkipReason,
  type SkipTrace,
} from './skip/trace.js';
export { writeLadder } from './speedup/folder.js';
export type { SpeedupOptions } from './speedup/options.js';
export { type RenderSpeedupOptions, renderSpeedup } from './speedup/report.js';
export { type Speedup, speedup } from './speedup/speedup.js';
export type { LadderRung, Tried, TriedPart } from './speedup/tried.js';
export type { FromImageOptions, PixelData } from './tensor/image-pixels.js';
export type {
  DataType,
  TensorConstructor,
  TensorData,
  TensorLike,
  TensorSource,
  TypedArrayOf,
  TypedTensor,
} from './tensor/tensor.js';
export { env, InferenceSession, Tensor, toFloat32 };
/** onnxruntime's name of a value of a model: tensors are the only ones. */
export type OnnxValue = Tensor;

/** For code that imports onnxruntime as a whole: `import ort from`. */
export default { env, InferenceSession, Tensor };
