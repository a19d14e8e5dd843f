/**
 * Records of the audit log: newline-delimited JSON, one record per line. A file begins with a header. Each item
 * refers to the header before it, each time in full to the item before it, each energy measurement to the header.
 * Every line ends in a link: SHA-256 over the previous link and the line's own text, so that a changed, removed or
 * inserted line is found. In logs of schema 1, links are the first 16 of its 64 digits.
 */
import { z } from 'zod';
import { PRECISIONS } from '../model/program/program.js';
import { late } from '../util/late.js';
import { expectation, problemsOf, sha256Schema } from '../util/validation.js';
import { sha256 } from './hash.js';
import { LineText } from './line.js';

export const AUDIT_SCHEMA_VERSION = 2;
const LINK = late(() =>
  z
    .string()
    .regex(/^([0-9a-f]{16}|[0-9a-f]{64})$/, { error: 'expected 64 hexadecimal digits in lower case' }),
);

/** Of a time that a Date can hold. */
const time = late(() =>
  z.int().min(0).max(8_640_000_000_000_000).meta({ description: 'Milliseconds since 1970-01-01 UTC.' }),
);

const headerSchema = late(() =>
  z.strictObject({
    type: z.literal('header'),
    schema: z.literal([1, AUDIT_SCHEMA_VERSION]),
    time: z.iso
      .datetime()
      .meta({ description: 'UTC time at which the log began or its circumstances changed.' }),
    engine: z.string().meta({ description: 'Version of residual-skip.' }),
    model: z.strictObject({ sha256: sha256Schema(), source: z.string().nullable() }),
    policy: z.strictObject({
      sha256: sha256Schema(),
      guards: z.array(z.string()).meta({ description: 'Answers that make an item run in full.' }),
    }),
    continues: LINK().meta({
      description:
        'Link of the line before, in the file before where this is the first line; zeros where the log begins.',
    }),
    writer: z
      .string()
      .optional()
      .meta({ description: 'Of the lines that one process wrote until it closed the log.' }),
    lost: z
      .int()
      .min(0)
      .optional()
      .meta({ description: 'Items that this writer could not write so far; their lines are missing.' }),
    backend: z.enum(['native', 'reference']),
    isa: z.string(),
    threads: z.int().min(1),
    precision: z
      .enum(PRECISIONS)
      .exclude(['float32'])
      .optional()
      .meta({ description: 'Left out for float32.' }),
    inputs: z.enum(['hash', 'none', 'store']),
    sample: z.number().min(0).max(1),
    labels: z.array(z.string()).nullable(),
    multiplyAdds: z.number().meta({ description: 'Of one item in full.' }),
    layers: z.int().meta({
      description: 'Convolutions and fully connected layers of the whole network without its gates.',
    }),
    blocks: z.array(
      z.strictObject({
        name: z.string(),
        shortcut: z.string(),
        skippable: z.boolean(),
        multiplyAdds: z.number(),
        layers: z.int(),
        threshold: z
          .number()
          .nullable()
          .meta({ description: 'Of the gate in force; null where none decides.' }),
      }),
    ),
  }),
);

const itemSchema = late(() =>
  z.strictObject({
    type: z.literal('item'),
    time: time(),
    run: z.int().meta({ description: 'Number of the run in this process.' }),
    item: z.int().meta({ description: 'Index in the batch of that run.' }),
    input: sha256Schema()
      .nullable()
      .meta({ description: "SHA-256 of the item's input bytes, inputs in name order." }),
    ran: z
      .string()
      .regex(/^[01]*$/)
      .meta({ description: 'A digit for each block: 1 ran, 0 skipped.' }),
    reasons: z.string().meta({
      description:
        'A letter for each block: g gate, c confidence gate, p policy, f fixed, x exit, v guard, t tripped.',
    }),
    scores: z
      .array(z.number().nullable())
      .meta({ description: 'float32, null where no gate was asked or NaN.' }),
    exits: z.array(z.tuple([z.string(), z.number().nullable()])).meta({
      description:
        'Exits that the item reached: the block in front of it, and the score, null where it was no finite number.',
    }),
    answeredBy: z.string().optional().meta({
      description:
        'The block or front whose exit answered, if `reasons` do not show it because no block is behind it.',
    }),
    inFull: z.enum(['guard', 'tripped']).optional().meta({
      description: 'Why the item ran in full, if `reasons` do not show it.',
    }),
    caller: z.string().optional().meta({ description: 'Who sent the request that the item belongs to.' }),
    request: z.string().optional().meta({ description: 'Id of that request.' }),
    clientRequest: z.string().optional().meta({ description: 'The id that the client itself gave it.' }),
    output: sha256Schema().meta({
      description: "SHA-256 of the item's output bytes, outputs in name order.",
    }),
    top: z
      .array(z.tuple([z.int(), z.number().nullable()]))
      .meta({ description: 'Best classes with their probability, null where it was NaN.' }),
    milliseconds: z.number().meta({ description: 'Wall-clock time of the run divided by its items.' }),
    multiplyAddsSkipped: z.number().optional().meta({
      description:
        "Saved, less what heads and a guard's run in full cost; there when it isn't the sum over the blocks that were skipped.",
    }),
  }),
);

const fullSchema = late(() =>
  z.strictObject({
    type: z.literal('full'),
    time: time(),
    run: z.int().meta({ description: 'Number of the run whose item it was, the last before this record.' }),
    milliseconds: z.number().meta({ description: 'Wall-clock time of the same item with every block run.' }),
    skipMilliseconds: z.number().optional().meta({
      description: 'Of the same item as the policy says, taken in the same way right before or after.',
    }),
  }),
);

const eachWay = late(() => z.strictObject({ full: z.number().min(0), skip: z.number().min(0) }));
const energySchema = late(() =>
  z.strictObject({
    type: z.literal('energy'),
    time: time(),
    items: z.int().min(1).meta({ description: 'Items that ran each way: in full, and as the policy says.' }),
    cpuSeconds: eachWay().meta({ description: 'CPU time of the process, of one item.' }),
    joules: eachWay()
      .nullable()
      .meta({ description: 'Of all processor packages, of one item; null where they can not be read.' }),
  }),
);

const checkpointSchema = late(() =>
  z.strictObject({
    type: z.literal('checkpoint'),
    time: time(),
    key: sha256Schema().meta({ description: 'SHA-256 of the public key, in DER form.' }),
    signature: z.string().meta({
      description:
        'Ed25519, in base64, of the text "residual-skip checkpoint TIME LINK" with the link of the line before.',
    }),
  }),
);

const endSchema = late(() =>
  z.strictObject({
    type: z.literal('end'),
    time: time(),
    written: z.int().min(0).meta({ description: 'Items that this writer wrote.' }),
    lost: z.int().min(0).meta({ description: 'Items that it could not write.' }),
  }),
);

const records = late(
  () =>
    [headerSchema(), itemSchema(), fullSchema(), energySchema(), checkpointSchema(), endSchema()] as const,
);
const auditRecordSchema = late(() => z.discriminatedUnion('type', records()));

const link = late(() =>
  LINK().meta({
    description:
      'SHA-256 of the link before and this line without its link; its first 16 digits in schema 1.',
  }),
);
/** A line as stored in the file. */
export const auditLineSchema = late(() =>
  z
    .discriminatedUnion('type', [
      headerSchema().extend({ link: link() }),
      itemSchema().extend({ link: link() }),
      fullSchema().extend({ link: link() }),
      energySchema().extend({ link: link() }),
      checkpointSchema().extend({ link: link() }),
      endSchema().extend({ link: link() }),
    ])
    .meta({ title: 'Line of an audit log of residual-skip' }),
);

/**
 * What the items behind it in a log have in common: model, policy, machine. The schema describes each field.
 * @interface
 */
export type AuditHeader = z.infer<ReturnType<typeof headerSchema>>;
/**
 * What one item did. The schema describes each field.
 * @interface
 */
export type AuditItem = z.infer<ReturnType<typeof itemSchema>>;
/**
 * What an item took of the processor, in full and with skipping.
 * @interface
 */
export type AuditEnergy = z.infer<ReturnType<typeof energySchema>>;

/** The letters that say why blocks of an item ran or not, and those of what happened to it where no block shows it. */
export function lettersOf({ reasons, answeredBy, inFull }: AuditItem): Set<string> {
  const letters = new Set(reasons);
  if (answeredBy !== undefined) letters.add('x');
  if (inFull !== undefined) letters.add(inFull === 'guard' ? 'v' : 't');
  return letters;
}

/** A signature over everything before it. */
export type AuditCheckpoint = z.infer<ReturnType<typeof checkpointSchema>>;
export type AuditRecord = z.infer<ReturnType<typeof auditRecordSchema>>;

/** The link before the first line of a log. */
export const FIRST_LINK = '0'.repeat(64);
const LINK_TEXT = /,"link":"([0-9a-f]{16}|[0-9a-f]{64})"\}$/;

/** A link of schema 1 as long as those of today. */
export const wholeLink = (link: string): string => link.padEnd(FIRST_LINK.length, '0');

/** Ends `line`, which holds one record, with its link and a newline. @returns the link */
export function sealLine(line: LineText, previous: string): string {
  line.before(previous);
  const link = sha256(line.withRoom());
  line.back(1);
  line.ascii(`,"link":"${link}"}\n`);
  return link;
}

/** One record as a line that continues the link `previous`. */
export function encodeRecord(record: AuditRecord, previous: string): Uint8Array {
  const line = new LineText();
  line.json(record);
  sealLine(line, previous);
  return line.text();
}

/** Link of the last of several whole lines. */
export function linkAtEnd(lines: Uint8Array): string {
  const end = lines.length - '"}\n'.length;
  const { length } = FIRST_LINK;
  return Buffer.from(lines.buffer, lines.byteOffset + end - length, length).toString('latin1');
}

export type DecodedLine =
  | { readonly record: AuditRecord; readonly link: string; readonly follows: boolean }
  | { readonly problem: string };

/**
 * Decodes a line without its newline.
 * @param previous the link that it must continue; if undefined, a header's own reference to the previous link is used
 * @returns `follows`: whether its link matches that link and its text; true if there is nothing to compare with
 */
export function decodeLine(line: string, previous?: string): DecodedLine {
  const match = LINK_TEXT.exec(line);
  if (!match) return { problem: 'it has no link at its end' };
  const text = `${line.slice(0, match.index)}}`;
  const link = match[1]!;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { problem: 'it is not JSON' };
  }
  const parsed = auditRecordSchema().safeParse(value, { error: expectation });
  if (!parsed.success) {
    const [first] = problemsOf(parsed.error.issues);
    return { problem: `${first!.path.join('.') || 'record'}: ${first!.message}` };
  }
  const record = parsed.data;
  const before = previous ?? (record.type === 'header' ? record.continues : undefined);
  return { record, link, follows: before === undefined || follows(before, text, link) };
}

/** A line of schema 1 can't follow one with a whole link: nobody could shorten the links of a log. */
function follows(before: string, text: string, link: string): boolean {
  if (before.length > link.length) return false;
  return link === sha256(before.padEnd(link.length, '0') + text).slice(0, link.length);
}
