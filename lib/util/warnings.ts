/** Process warnings. */

/** What a warning is about: its code is `RESIDUAL_SKIP_` and this. */
type Subject = 'AUDIT' | 'CACHE' | 'GATE' | 'NOTE' | 'OBSERVER' | 'OPTION';

export function emitWarning(subject: Subject, text: string): void {
  process.emitWarning(text, { code: `RESIDUAL_SKIP_${subject}` });
}

/** About an error in an observer. */
export function warnOfObserver(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  emitWarning('OBSERVER', `a run observer failed: ${text}`);
}
