/** Whether a model's files say of items and labels what they said when its policy was certified. */
import type { SkipPolicy } from '../skip/policy.js';
import { makeNote, type WorkOptions } from './work.js';

/** What may have changed: for images, what becomes of their pixels, for texts, their tokens. */
const PREPARED_OTHERWISE = {
  images:
    'policy: the images that certified it were prepared otherwise (sizes, filter, normalisation, or the version of this package), so that ' +
    'its promise is about other tensors; prepare images as then, or calibrate again',
  texts:
    'policy: the texts that certified it were prepared otherwise (tokenizer.json, tokenizer_config.json, the most tokens of a text, pooling, or ' +
    'the version of this package), so that its promise is about other tokens; restore the files as they were then, or calibrate again',
  sounds:
    'policy: the sounds that certified it were prepared otherwise (sampling_rate or do_normalize of preprocessor_config.json), so that its ' +
    'promise is about other samples; prepare sounds as then, or calibrate again',
} as const;

/** How items of a model become tensors, and what its classes are called. */
export interface Preparation {
  readonly what: keyof typeof PREPARED_OTHERWISE;
  /** As in a policy's `preprocessing`; called if that is set. Undefined where the caller prepares tensors. */
  readonly id: (() => string | Promise<string>) | undefined;
  /** Undefined if the classes have no names. */
  readonly labels: readonly string[] | undefined;
}

/** Notes what differs from what the policy says of the items that certified it. A policy that says nothing is believed. */
export async function notePreparation(
  { preprocessing, labels: promised }: SkipPolicy,
  { what, id, labels }: Preparation,
  onNote: WorkOptions['onNote'],
): Promise<void> {
  if (preprocessing !== undefined && id && preprocessing !== (await id()))
    makeNote(onNote, PREPARED_OTHERWISE[what]);
  if (!promised || !labels) return;
  const other = promised.findIndex((label, index) => label !== labels[index]);
  if (other < 0 && promised.length === labels.length) return;
  const index = other < 0 ? promised.length : other;
  const named = (of: readonly string[]) => (index < of.length ? `'${of[index]}'` : 'nothing');
  makeNote(
    onNote,
    `policy: it calls class ${index} ${named(promised)}, but the model's labels call it ${named(labels)}; its guards and limits are about the ` +
      'classes as they were called then; restore the labels (config.json, labels), or calibrate again',
  );
}
