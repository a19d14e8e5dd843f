import type { IncomingMessage } from 'node:http';
import { ServerError } from '../errors.js';

/** Whether an address, or the name of a host, is this machine's own. */
export function isLoopback(host: string): boolean {
  return /^(localhost|.*\.localhost|127(\.\d+){3}|(::ffff:)?127(\.\d+){3}|::1|\[::1\])$/i.test(host);
}

/**
 * Refuses what web pages of other origins send, whose users don't know: browsers name the page's origin. A page may also have its own
 * name lead to this machine (DNS rebinding); then Host has that name.
 * @throws ServerError PERMISSION_DENIED
 */
export function checkOrigin({ headers, socket }: IncomingMessage): void {
  const host = hostOf(`http://${headers.host}`);
  const { origin } = headers;
  if (origin !== undefined && (host === undefined || hostOf(origin) !== host))
    throw new ServerError('PERMISSION_DENIED', 'header Origin: pages of other origins may not do this');
  if (isLoopback(socket.localAddress ?? '') && !isLoopback(host ?? '')) {
    throw new ServerError(
      'PERMISSION_DENIED',
      'header Host: it is another name than localhost; send this to http://localhost, on the machine of the server',
    );
  }
}

function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}
