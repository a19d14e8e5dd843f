import { Tensor } from 'residual-skip';
import { type Caller, MAX_ID } from '../caller.js';
import { asServerError, ServerError } from '../errors.js';
import type { ServedModel } from '../models/model.js';
import type { ModelRepository } from '../models/repository.js';
import { settingParameters } from '../models/settings.js';
import { runQueued, runTogether, SHORT_MS, type Work } from './call.js';
import { datatypeOf } from './datatypes.js';
import type { Hold } from './images.js';
import { Lobby } from './lobby.js';
import type { Failed, Finished, InferRequest, InferResponse, ResponseOutput } from './messages.js';
import { JobQueue, QUEUE_FULL } from './queue.js';
import {
  bytesIn,
  checkClasses,
  checkOutputs,
  classesAsked,
  feedsOf,
  leaveAfter,
  priorityOf,
  settingFor,
} from './request.js';

/** For all refused requests: an error of its own takes longer than the rest of a refusal. */
export const BUSY = new ServerError('BUSY', QUEUE_FULL);

export interface InferenceOptions {
  readonly capacity: number;
  readonly threads: number;
  readonly maxItems: number;
  /** Maximum number of items in a request. */
  readonly maxRequestItems: number;
  /** Maximum number of bytes that the inputs of all requests take together. */
  readonly inputLimit: number;
  /** Target of the 99th percentile of the latency, in milliseconds. */
  readonly targetP99?: number | undefined;
  readonly onFinished?: (finished: Finished) => void;
  readonly onFailed?: (failed: Failed) => void;
}

/** Runs requests: checks them, decodes images, queues and batches them, and formats answers. */
export class Inference {
  readonly queue: JobQueue<Work>;
  readonly lobby: Lobby;
  readonly #repository: ModelRepository;
  readonly #options: InferenceOptions;
  /** Bytes of the inputs of all requests that have no answer yet, and those of each client. */
  #held = 0;
  #inFlight = 0;
  readonly #heldBy = new Map<string, number>();

  constructor(repository: ModelRepository, options: InferenceOptions) {
    this.#repository = repository;
    this.#options = options;
    const { capacity, threads, maxItems, targetP99 } = options;
    this.queue = new JobQueue<Work>(
      // With a call more than threads, a thread that becomes free needn't wait for the event loop.
      { capacity, concurrency: threads + 1, maxItems, longestJoinedMs: SHORT_MS },
      runTogether,
    );
    this.lobby = new Lobby(this.queue, targetP99);
  }

  /** Requests that have no answer yet. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get maxRequestItems(): number {
    return this.#options.maxRequestItems;
  }

  /** @throws ServerError */
  async infer(request: InferRequest, caller: Caller): Promise<InferResponse> {
    const { started = performance.now() } = request;
    let model: ServedModel | null = null;
    let entered = false;
    let held = 0;
    const { client } = caller;
    const hold: Hold = (bytes) => {
      this.#checkMemory(client, held + bytes, bytes);
      held += bytes;
      this.#count(client, bytes);
    };
    this.#inFlight++;
    try {
      hold(bytesIn(request.inputs));
      const found = this.#repository.get(request.model, request.version);
      model = found;
      found.enter();
      entered = true;
      return await this.#inferOn(found, request, caller, started, hold);
    } catch (error) {
      throw this.#failed(model, error, request, started);
    } finally {
      if (entered) model!.leave();
      this.#count(client, -held);
      this.#inFlight--;
    }
  }

  #count(client: string, bytes: number): void {
    this.#held += bytes;
    const own = (this.#heldBy.get(client) ?? 0) + bytes;
    if (own > 0) this.#heldBy.set(client, own);
    else this.#heldBy.delete(client);
  }

  /** Throws unless a request of the client that takes `all` bytes may take `more` of them now. */
  #checkMemory(client: string, all: number, more: number): void {
    const { inputLimit } = this.#options;
    if (all > inputLimit) {
      throw new ServerError(
        'TOO_LARGE',
        `inputs: they take ${all} bytes, more than the ${inputLimit} that this server has for them; send smaller batches`,
      );
    }
    const own = (this.#heldBy.get(client) ?? 0) + more;
    // Several requests of one client leave half of the memory to others.
    if (this.#held + more > inputLimit || (own > all && own > inputLimit / 2)) {
      const message = `inputs: those of all requests fill the ${inputLimit} bytes that this server has for them; try again later`;
      throw new ServerError('BUSY', message, { retryAfter: 1 });
    }
  }

  /** Counts a request that is refused before its body is read, because the queue has no room. */
  refused(name: string, version: string): void {
    this.#failed(this.#repository.find(name, version) ?? null, BUSY, null, performance.now());
  }

  /** Refuses a long request for what its JSON announces, before its tensors are read. Errors as `infer`. */
  checkAnnounced(client: string, model: ServedModel | undefined, bytes: number, items: number): void {
    try {
      this.#checkMemory(client, bytes, bytes);
      if (model?.itemwise) this.#checkItems(items);
    } catch (error) {
      throw this.#failed(model ?? null, error, null, performance.now());
    }
  }

  #failed(
    model: ServedModel | null,
    cause: unknown,
    request: InferRequest | null,
    started: number,
  ): ServerError {
    const error = asServerError(cause);
    if (model) {
      model.counts.failures++;
      model.counts.failNs += (performance.now() - started) * 1e6;
    }
    this.#options.onFailed?.({ model, error, request, started });
    return error;
  }

  async #inferOn(
    model: ServedModel,
    request: InferRequest,
    caller: Caller,
    started: number,
    hold: Hold,
  ): Promise<InferResponse> {
    const { policy, timeout, trace } = request.parameters;
    if (request.id.length > MAX_ID)
      throw new ServerError('INVALID_ARGUMENT', `id: expected at most ${MAX_ID} characters`);
    const priority = priorityOf(request.parameters.priority, caller);
    const { group } = caller.access;
    const setting = settingFor(model, group, policy, request.parameters.max_disagreement);
    const deadline = leaveAfter(caller, timeout);
    try {
      this.queue.enter(caller);
      for (const { content } of request.inputs)
        if (!(content instanceof Tensor)) this.#checkItems(content.length);
      const prepared = performance.now();
      const given = feedsOf(model, request, caller, hold);
      // Each turn of promises counts: most requests have nothing to decode.
      const feeds = given instanceof Promise ? await given : given;
      const fetches =
        request.outputs.length > 0 ? request.outputs.map(({ name }) => name) : model.outputNames;
      checkOutputs(model, fetches);
      for (const name of fetches) checkClasses(model, name, classesAsked(request, name));
      this.#checkItems(feeds.reduce((sum, one) => sum + model.itemsOf(one), 0));
      const queued = performance.now();
      const asked = { caller: caller.client, id: caller.id, clientId: request.id, group };
      const inputMs = queued - prepared;
      model.counts.inputNs += inputMs * 1e6;
      const work: Work = { model, setting, feeds: feeds[0]!, fetches, request: asked, queued, inputMs };
      await runQueued(this.queue, work, feeds, { priority, caller });
      return this.#answer(request, work, started, trace === true);
    } finally {
      clearTimeout(deadline);
      this.queue.exit(caller);
    }
  }

  #checkItems(items: number): void {
    const { maxRequestItems } = this.#options;
    if (items <= maxRequestItems) return;
    throw new ServerError(
      'TOO_LARGE',
      `inputs: they have ${items} items, and a request may have ${maxRequestItems}; send smaller batches`,
    );
  }

  #answer(request: InferRequest, work: Work, started: number, traced: boolean): InferResponse {
    const { model } = work;
    const { setting, outputs, items, multiplyAdds, queueMs, callMs, callItems } = work.result!;
    const { counts } = model;
    counts.requests++;
    counts.items += items.length;
    // The call's time is divided among its requests by their number of items.
    const share = callItems > 0 ? items.length / callItems : 1;
    counts.calls += share;
    counts.queueNs += queueMs * 1e6;
    counts.computeNs += callMs * share * 1e6;
    const batch = counts.batches.get(callItems) ?? { calls: 0, ns: 0 };
    batch.calls += share;
    batch.ns += callMs * share * 1e6;
    counts.batches.set(callItems, batch);
    counts.lastMs = Date.now();
    const { feeds, inputMs } = work;
    this.#options.onFinished?.({
      request,
      started,
      model,
      setting,
      items,
      multiplyAdds,
      inputMs,
      queueMs,
      callMs,
      callItems,
      feeds,
      outputs,
    });
    let [skippedBlocks, saved] = [0, 0];
    for (const { blocks, multiplyAddsSkipped } of items) {
      for (const { ran } of blocks) if (!ran) skippedBlocks++;
      saved += multiplyAddsSkipped;
    }
    const parameters = settingParameters(setting, model.isWatched(setting));
    parameters.blocks_skipped = skippedBlocks;
    parameters.multiply_adds_skipped = multiplyAdds > 0 ? saved / (items.length * multiplyAdds) : 0;
    if (traced) parameters.trace = JSON.stringify(items);
    return {
      model: model.name,
      version: model.version,
      id: request.id,
      parameters,
      outputs: work.fetches.map((name) => this.#output(request, model, name, outputs[name]!)),
    };
  }

  #output(request: InferRequest, model: ServedModel, name: string, tensor: Tensor): ResponseOutput {
    const classes = classesAsked(request, name);
    if (classes === undefined) {
      return { name, datatype: datatypeOf(tensor.type), shape: tensor.dims, content: tensor };
    }
    return classification(model.classifier!, name, tensor, Number(classes));
  }
}

/** Answers of the classification extension: `score:index:label`, most probable first. */
function classification(
  classifier: NonNullable<ServedModel['classifier']>,
  name: string,
  tensor: Tensor,
  count: number,
): ResponseOutput {
  const each = Math.min(count, classifier.labels.length);
  // A model that mixes the items of a batch runs it as one item but answers for each.
  const items = tensor.dims[0] ?? 1;
  const content = classifier.scoresOf({ [name]: tensor }, items).flatMap((scores) =>
    Array.from(scores, (score, index) => ({ score, index }))
      .sort((a, b) => b.score - a.score || a.index - b.index)
      .slice(0, each)
      .map(({ score, index }) => Buffer.from(`${score}:${index}:${classifier.labels[index]}`)),
  );
  return { name, datatype: 'BYTES', shape: [items, each], content };
}
