/**
 * Records of the audit log: newline-delimited JSON, one record per line. A file begins with a header. Each item
 * refers to the header before it, each time in full to the item before it, each energy measurement to the header.
 * Every line ends in a link: the first 16 hexadecimal digits of SHA-256 over the previous link and the line's own
 * text, so that a changed, removed or inserted line is found.
 */
import { z } from 'zod';
import { expectation, problemsOf } from '../util/validation.js';
import { sha256 } from './hash.js';
import { LineText } from './line.js';

export const AUDIT_SCHEMA_VERSION = 1;
const hex = (digits: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`), {
    error: `expected ${digits} hexadecimal digits in lower case`,
  });
const SHA256 = hex(64);
const LINK = hex(16);

/** Of a time that a Date can hold. */
const time = z
  .int()
  .min(0)
  .max(8_640_000_000_000_000)
  .meta({ description: 'Milliseconds since 1970-01-01 UTC.' });

const headerSchema = z.strictObject({
  type: z.literal('header'),
  schema: z.literal(AUDIT_SCHEMA_VERSION),
  time: z.iso
    .datetime()
    .meta({ description: 'UTC time at which the log began or its circumstances changed.' }),
  engine: z.string().meta({ description: 'Version of residual-skip.' }),
  model: z.strictObject({ sha256: SHA256, source: z.string().nullable() }),
  policy: z.strictObject({
    sha256: SHA256,
    guards: z.array(z.string()).meta({ description: 'Answers that make an item run in full.' }),
  }),
  continues: LINK.meta({
    description:
      'Link of the line before, in the file before where this is the first line; zeros where the log begins.',
  }),
  backend: z.enum(['native', 'reference']),
  isa: z.string(),
  threads: z.int().min(1),
  precision: z.literal('bfloat16').optional().meta({ description: 'Left out for float32.' }),
  inputs: z.enum(['hash', 'none']),
  sample: z.number().min(0).max(1),
  labels: z.array(z.string()).nullable(),
  multiplyAdds: z.number().meta({ description: 'Of one item in full.' }),
  layers: z
    .int()
    .meta({ description: 'Convolutions and fully connected layers of the whole network without its gates.' }),
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
});

const itemSchema = z.strictObject({
  type: z.literal('item'),
  time,
  run: z.int().meta({ description: 'Number of the run in this process.' }),
  item: z.int().meta({ description: 'Index in the batch of that run.' }),
  input: SHA256.nullable().meta({ description: "SHA-256 of the item's input bytes, inputs in name order." }),
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
  exits: z
    .array(z.tuple([z.string(), z.number()]))
    .meta({ description: 'Exits that the item reached: the block in front of it, and the score.' }),
  output: SHA256.meta({ description: "SHA-256 of the item's output bytes, outputs in name order." }),
  top: z.array(z.tuple([z.int(), z.number()])).meta({ description: 'Best classes with their probability.' }),
  milliseconds: z.number().meta({ description: 'Wall-clock time of the run divided by its items.' }),
  multiplyAddsSkipped: z.number().optional().meta({
    description:
      "Saved, less what heads and a guard's run in full cost; there when it isn't the sum over the blocks that were skipped.",
  }),
});

const fullSchema = z.strictObject({
  type: z.literal('full'),
  time,
  run: z.int().meta({ description: 'Number of the run whose item it was, the last before this record.' }),
  milliseconds: z.number().meta({ description: 'Wall-clock time of the same item with every block run.' }),
  skipMilliseconds: z.number().optional().meta({
    description: 'Of the same item as the policy says, taken in the same way right before or after.',
  }),
});

const eachWay = z.strictObject({ full: z.number().min(0), skip: z.number().min(0) });
const energySchema = z.strictObject({
  type: z.literal('energy'),
  time,
  items: z.int().min(1).meta({ description: 'Items that ran each way: in full, and as the policy says.' }),
  cpuSeconds: eachWay.meta({ description: 'CPU time of the process, of one item.' }),
  joules: eachWay
    .nullable()
    .meta({ description: 'Of all processor packages, of one item; null where they can not be read.' }),
});

const auditRecordSchema = z.discriminatedUnion('type', [headerSchema, itemSchema, fullSchema, energySchema]);

const link = LINK.meta({
  description: 'SHA-256 of the link before and this line without its link, the first 16 digits.',
});
/** A line as stored in the file. */
export const auditLineSchema = z
  .discriminatedUnion('type', [
    headerSchema.extend({ link }),
    itemSchema.extend({ link }),
    fullSchema.extend({ link }),
    energySchema.extend({ link }),
  ])
  .meta({ title: 'Line of an audit log of residual-skip' });

/**
 * What the items behind it in a log have in common: model, policy, machine. The schema describes each field.
 * @interface
 */
export type AuditHeader = z.infer<typeof headerSchema>;
/**
 * What one item did. The schema describes each field.
 * @interface
 */
export type AuditItem = z.infer<typeof itemSchema>;
/**
 * What an item took of the processor, in full and with skipping.
 * @interface
 */
export type AuditEnergy = z.infer<typeof energySchema>;
export type AuditRecord = AuditHeader | AuditItem | z.infer<typeof fullSchema> | AuditEnergy;

/** The link before the first line of a log. */
export const FIRST_LINK = '0'.repeat(16);
const LINK_TEXT = /,"link":"([0-9a-f]{16})"\}$/;

/** The link of a line: the hash of `text`, which is the previous link followed by the line's own text. */
function linkOf(text: string | Uint8Array): string {
  return sha256(text).slice(0, 16);
}

/** Ends `line`, which holds one record, with its link and a newline. @returns the link */
export function sealLine(line: LineText, previous: string): string {
  line.before(previous);
  const link = linkOf(line.withRoom());
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
  return Buffer.from(lines.buffer, lines.byteOffset + end - 16, 16).toString('latin1');
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
  const parsed = auditRecordSchema.safeParse(value, { error: expectation });
  if (!parsed.success) {
    const [first] = problemsOf(parsed.error.issues);
    return { problem: `${first!.path.join('.') || 'record'}: ${first!.message}` };
  }
  const record = parsed.data;
  const before = previous ?? (record.type === 'header' ? record.continues : undefined);
  return { record, link, follows: before === undefined || link === linkOf(before + text) };
}
