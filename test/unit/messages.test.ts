import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import ts from 'typescript';

const ROOT = resolve(__dirname, '../..');
const CLASSES = ['ResidualSkipError', 'ServerError'];

function filesBelow(folder: string, extension: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => extension.test(name))
    .map((name) => join(ROOT, folder, name));
}

/** Text at the beginning and at the end of a message; undefined where a variable is there. */
interface Ends {
  readonly start: string | undefined;
  readonly end: string | undefined;
}

function endsOf(node: ts.Expression): readonly Ends[] {
  if (ts.isStringLiteralLike(node)) return [{ start: node.text, end: node.text }];
  if (ts.isTemplateExpression(node)) {
    const last = node.templateSpans.at(-1)!.literal.text;
    return [{ start: node.head.text || undefined, end: last || undefined }];
  }
  if (ts.isConditionalExpression(node)) return [...endsOf(node.whenTrue), ...endsOf(node.whenFalse)];
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.PlusToken) {
    return endsOf(node.left).flatMap(({ start }) => endsOf(node.right).map(({ end }) => ({ start, end })));
  }
  return [{ start: undefined, end: undefined }];
}

function messagesIn(file: string): (Ends & { readonly where: string })[] {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest);
  const found: (Ends & { where: string })[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isNewExpression(node) && CLASSES.includes(node.expression.getText(source))) {
      const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
      const where = `${relative(ROOT, file)}:${line + 1}`;
      const message = node.arguments?.[1];
      if (message) found.push(...endsOf(message).map((ends) => ({ ...ends, where })));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** Literals of `EngineError(code, "..." + ... + "...")`; the literals of one call are never nested in another's. */
function nativeMessagesIn(file: string): (Ends & { readonly where: string })[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/EngineError\w*\(\s*ErrorCode::k\w+,([^;]*);/g)].map(([, call]) => {
    const [, first] = /^\s*(?:std::string\()?"([^"]*)"/.exec(call!) ?? [];
    const [, last] = /"([^"]*)"\s*\)+$/.exec(call!) ?? [];
    return {
      start: first,
      end: last,
      where: `${relative(ROOT, file)}: ${call!.trim().slice(0, 40)}`,
    };
  });
}

test('messages of errors begin with the thing in lower case and have no full stop at the end', () => {
  const messages = [
    ...[...filesBelow('lib', /\.ts$/), ...filesBelow('server/src', /\.ts$/)].flatMap(messagesIn),
    ...filesBelow('native', /\.(cc|h)$/).flatMap(nativeMessagesIn),
  ];
  expect(messages.length).toBeGreaterThan(150);
  // A capital is right in a name: CIFAR-10, IDX, a header of HTTP.
  const upper = messages.filter(({ start }) => start !== undefined && /^[A-Z][a-z ]/.test(start));
  expect(upper.filter(({ start }) => !/^[A-Z]\w*-[A-Z]/.test(start!))).toEqual([]);
  expect(messages.filter(({ end }) => end?.endsWith('.'))).toEqual([]);
});
