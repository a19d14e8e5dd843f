/** What a request asks for, checked: its inputs as tensors, outputs, setting, priority and deadline. */
import { Tensor, type TensorMap } from 'residual-skip';
import { checkRight } from '../auth.js';
import type { Caller } from '../caller.js';
import { ServerError } from '../errors.js';
import type { ServedModel } from '../models/model.js';
import type { Setting } from '../models/settings.js';
import { type Hold, imagesAsTensor } from './images.js';
import type { InferRequest, Parameters, RequestInput } from './messages.js';
import { Turns } from './turns.js';

/** The number of best classes that the request wants instead of the output's scores. */
export function classesAsked(
  { outputs, parameters }: InferRequest,
  name: string,
): Parameters[string] | undefined {
  const own = outputs.find((output) => output.name === name)?.parameters;
  return own?.classification ?? parameters.classification;
}

export function checkClasses(
  { classifier, name: model }: ServedModel,
  name: string,
  classes: Parameters[string] | undefined,
): void {
  if (classes === undefined) return;
  const count = Number(classes);
  if (classifier && name === classifier.output && Number.isSafeInteger(count) && count > 0) return;
  throw new ServerError(
    'INVALID_ARGUMENT',
    `output '${name}': model ${model} can't name ${classes} classes of it; request the tensor`,
  );
}

/** Undefined: the model's when the request runs. Otherwise requests that wait when it changes would still run in the old one. */
export function settingFor(
  model: ServedModel,
  group: string,
  policy: Parameters[string] | undefined,
  maxDisagreement: Parameters[string] | undefined,
): Setting | undefined {
  if (maxDisagreement === undefined)
    return policy === undefined ? undefined : model.settingCalled(String(policy), group);
  if (policy !== undefined || typeof maxDisagreement !== 'number' || !(maxDisagreement >= 0)) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `parameters.max_disagreement: expected a share, such as 0.01, and no policy beside it, received ${maxDisagreement}`,
    );
  }
  return model.settingWithin(maxDisagreement, group);
}

/** Feeds of each text, or of all items; a promise if there is something to decode. */
export function feedsOf(
  model: ServedModel,
  { inputs }: InferRequest,
  caller: Caller,
  hold: Hold,
): TensorMap[] | Promise<TensorMap[]> {
  const [first] = inputs;
  const names = new Set<string>();
  for (const { name } of inputs) {
    if (names.has(name))
      throw new ServerError('INVALID_ARGUMENT', `input '${name}': it is there twice; send each input once`);
    names.add(name);
  }
  if (model.text && inputs.length === 1 && !(first!.content instanceof Tensor)) {
    if (first!.content.length === 0)
      throw new ServerError('INVALID_ARGUMENT', `input '${first!.name}': it has no texts; send one or more`);
    return tokensOf(model, first!.content, caller);
  }
  if (!inputs.every(({ content }) => content instanceof Tensor))
    return decoded(model, inputs, caller, hold).then((feeds) => [feeds]);
  // Not by assignment: an input may be called __proto__.
  return [Object.fromEntries(inputs.map(({ name, content }) => [name, content as Tensor]))];
}

/** Bytes of texts that become tokens in a turn of the event loop: a few milliseconds. */
const TURN_TEXT = 8 << 10;
/** Even a short text takes as long as so many. */
const LEAST_TEXT = 128;
const turns = new Turns();

function tokensOf(
  model: ServedModel,
  texts: readonly (Uint8Array | string)[],
  caller: Caller,
): TensorMap[] | Promise<TensorMap[]> {
  const feeds: TensorMap[] = [];
  const some = () => {
    for (let bytes = 0; bytes < TURN_TEXT && feeds.length < texts.length; ) {
      const text = texts[feeds.length]!;
      feeds.push(model.tokens(text, `texts[${feeds.length}]`));
      bytes += Math.max(text.length, LEAST_TEXT);
    }
    return feeds.length === texts.length;
  };
  const rest = async () => {
    do {
      await new Promise<void>((resolve) => turns.wait(caller.client, resolve));
      if (caller.reason) throw caller.reason;
    } while (!some());
    return feeds;
  };
  const isLong = texts.reduce((sum, { length }) => sum + Math.max(length, LEAST_TEXT), 0) > TURN_TEXT;
  if (isLong) return rest();
  some();
  return feeds;
}

async function decoded(
  model: ServedModel,
  inputs: readonly RequestInput[],
  caller: Caller,
  hold: Hold,
): Promise<TensorMap> {
  const feeds: [string, Tensor][] = [];
  for (const { name, content } of inputs) {
    const tensor =
      content instanceof Tensor ? content : await imagesAsTensor(model, name, content, caller, hold);
    feeds.push([name, tensor]);
  }
  return Object.fromEntries(feeds);
}

export function bytesIn(inputs: readonly RequestInput[]): number {
  let bytes = 0;
  for (const { content } of inputs) {
    if (content instanceof Tensor) bytes += content.data.byteLength;
    else for (const { length } of content) bytes += length;
  }
  return bytes;
}

export function checkOutputs(model: ServedModel, fetches: readonly string[]): void {
  const names = new Set<string>();
  for (const name of fetches) {
    if (names.has(name))
      throw new ServerError('INVALID_ARGUMENT', `output '${name}': it is requested twice; request it once`);
    names.add(name);
  }
  const unknown = fetches.find((name) => !model.outputNames.includes(name));
  if (unknown === undefined) return;
  const known = model.outputNames.join(', ');
  throw new ServerError(
    'INVALID_ARGUMENT',
    `output '${unknown}': model ${model.name} doesn't have it; its outputs are ${known}`,
  );
}

/** For the protocol's 0 and for a missing priority; served after 1 to 9. */
const DEFAULT_PRIORITY = 10;

export function priorityOf(value: unknown, { access }: Caller): number {
  if (value === undefined || value === 0) return DEFAULT_PRIORITY;
  const priority = Number(value);
  if (Number.isSafeInteger(priority) && priority > 0) {
    if (priority < DEFAULT_PRIORITY) checkRight(access, 'priority', 'parameters.priority');
    return priority;
  }
  throw new ServerError(
    'INVALID_ARGUMENT',
    `parameters.priority: expected a whole number of at least 0, received ${value}`,
  );
}

/** Node fires longer timers immediately. It is 24 days, longer than any request waits. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Lets the caller leave after `microseconds`, if there is such a limit. */
export function leaveAfter(caller: Caller, microseconds: unknown): NodeJS.Timeout | undefined {
  if (microseconds === undefined) return undefined;
  const limit = Number(microseconds);
  if (!(limit > 0)) {
    throw new ServerError(
      'INVALID_ARGUMENT',
      `parameters.timeout: expected microseconds above 0, received ${microseconds}`,
    );
  }
  const late = () =>
    caller.leave(
      new ServerError('TIMEOUT', `request: it took longer than its timeout of ${limit} µs; allow more`),
    );
  return limit / 1000 <= LONGEST_TIMER_MS ? setTimeout(late, limit / 1000) : undefined;
}
