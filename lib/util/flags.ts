/** Schemas of options that are flags of a command as well. */
import { z } from 'zod';

/** How the command takes an option. */
export interface Flag {
  /** As commander writes it. */
  readonly flag: string;
  readonly description: string;
  /** Turns the flag's text into the option's value. */
  readonly read: (text: string) => unknown;
  /** Not listed: for tests and experiments. */
  readonly hidden: boolean;
}

export const flags = z.registry<Flag>();

export function flagged<T extends z.ZodType>(
  schema: T,
  flag: string,
  description: string,
  read: Flag['read'] = (text) => text,
  hidden = false,
): T {
  flags.add(schema, { flag, description, read, hidden });
  return schema;
}

export const number = (text: string): unknown =>
  text.trim() === '' || Number.isNaN(Number(text)) ? text : Number(text);
