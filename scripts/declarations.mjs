// Makes the declarations of the published package stand on their own: types that follow from a schema are written out, so that
// nobody needs zod for them, and what users can't reach is left out.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import ts from 'typescript';

const OPTIONS = {
  module: ts.ModuleKind.Node18,
  target: ts.ScriptTarget.ES2022,
  strict: true,
  types: ['node'],
};
const ENTRIES = ['index.d.ts', 'index.d.mts', 'client/index.d.ts', 'client/index.d.mts'];
const SCHEMA_TYPES = ['z.infer', 'z.input', 'z.output'];

/** Writes the declarations of the entry points, from the compiled ones in `from`, into the folder `to`. */
export function writeDeclarations(from, to) {
  for (const [name, text] of reachable(to, writtenOut(from))) {
    mkdirSync(dirname(join(to, name)), { recursive: true });
    writeFileSync(join(to, name), text);
  }
}

/** A program of the declarations in a folder, and its files by their names there. `texts` are read instead of files. */
function programOf(folder, texts = new Map()) {
  const host = ts.createCompilerHost(OPTIONS);
  const { readFile, fileExists } = host;
  const nameOf = (path) => relative(folder, path).split(sep).join('/');
  host.readFile = (path) => texts.get(nameOf(path)) ?? readFile(path);
  host.fileExists = (path) => texts.has(nameOf(path)) || fileExists(path);
  host.directoryExists = undefined;
  host.getSourceFile = (path, version) => {
    const text = host.readFile(path);
    return text === undefined ? undefined : ts.createSourceFile(path, text, version, true);
  };
  const program = ts.createProgram(
    ENTRIES.map((name) => join(folder, name)),
    OPTIONS,
    host,
  );
  const inFolder = program
    .getSourceFiles()
    .filter(({ fileName }) => !/^\.\.|node_modules/.test(nameOf(fileName)));
  return {
    checker: program.getTypeChecker(),
    files: new Map(inFolder.map((file) => [nameOf(file.fileName), file])),
  };
}

/** The text of each file, in which types of schemas are written out. */
function writtenOut(folder) {
  const { checker, files } = programOf(folder);
  const texts = new Map();
  for (const [name, file] of files) {
    let text = file.text;
    const visit = (node) => {
      // From the end, so that positions before it stay.
      for (const child of [...node.getChildren(file)].reverse()) visit(child);
      if (!ts.isTypeReferenceNode(node) || !SCHEMA_TYPES.includes(node.typeName.getText(file))) return;
      const type = written(checker, checker.getTypeFromTypeNode(node), node);
      const printed = ts
        .createPrinter()
        .printNode(ts.EmitHint.Unspecified, type, file)
        .replace(/(?<=import\(")[^"]+/g, (path) => moduleName(dirname(file.fileName), path));
      text = text.slice(0, node.getStart(file)) + printed + text.slice(node.end);
    };
    visit(file);
    texts.set(name, text);
  }
  return texts;
}

/** What a file in `folder` calls a module that TypeScript names by its path. */
function moduleName(folder, path) {
  const name = relative(folder, path).split(sep).join('/');
  return `${name.startsWith('.') ? '' : './'}${name}.js`;
}

/** A type as a node: what a schema describes as an object keeps the comments of its properties. */
function written(checker, type, place) {
  const node = checker.typeToTypeNode(
    type,
    place,
    ts.NodeBuilderFlags.NoTruncation | ts.NodeBuilderFlags.InTypeAlias,
  );
  if (!ts.isTypeLiteralNode(node)) return node;
  ts.setEmitFlags(node, ts.EmitFlags.None);
  for (const member of node.members) {
    const property = member.name && type.getProperty(member.name.text);
    const comment = property?.declarations
      ?.flatMap((declaration) => ts.getJSDocCommentsAndTags(declaration))
      .at(-1);
    if (comment) {
      const inner = comment.getText().slice('/*'.length, -'*/'.length);
      ts.addSyntheticLeadingComment(member, ts.SyntaxKind.MultiLineCommentTrivia, inner, true);
    }
  }
  return node;
}

/** The files with those statements that the entry points, or statements that they need, name. */
function reachable(folder, texts) {
  const { checker, files } = programOf(folder, texts);
  const sources = new Set(files.values());
  const used = new Set();
  const visit = (node) => {
    let symbol = ts.isIdentifier(node) ? checker.getSymbolAtLocation(node) : undefined;
    while (symbol) {
      symbol.declarations?.forEach(use);
      symbol = symbol.flags & ts.SymbolFlags.Alias ? checker.getImmediateAliasedSymbol(symbol) : undefined;
    }
    ts.forEachChild(node, visit);
  };
  const use = (declaration) => {
    if (used.has(declaration) || !sources.has(declaration.getSourceFile()) || ts.isSourceFile(declaration))
      return;
    used.add(declaration);
    let statement = declaration;
    while (!ts.isSourceFile(statement.parent)) statement = statement.parent;
    if (declaration === statement) visit(statement);
    else if (!ts.isImportDeclaration(statement)) use(statement);
  };
  for (const name of ENTRIES) for (const statement of files.get(name)?.statements ?? []) use(statement);
  return [...files].flatMap(([name, file]) => {
    if (!file.statements.some((statement) => used.has(statement))) return [];
    return [[name, file.statements.map((statement) => textOf(statement, used)).join('')]];
  });
}

/** The text of a statement: all of it, what is used of an import, or nothing. */
function textOf(statement, used) {
  if (used.has(statement)) return statement.getFullText();
  const clause = ts.isImportDeclaration(statement) ? statement.importClause : undefined;
  const bindings = clause?.namedBindings;
  const named = bindings?.elements
    ?.filter((element) => used.has(element))
    .map((element) => element.getText());
  const parts = [
    clause?.name && used.has(clause) && clause.name.text,
    bindings && used.has(bindings) && bindings.getText(),
    named?.length > 0 && `{ ${named.join(', ')} }`,
  ].filter(Boolean);
  if (parts.length === 0) return '';
  const type = clause.isTypeOnly ? 'type ' : '';
  return `\nimport ${type}${parts.join(', ')} from ${statement.moduleSpecifier.getText()};`;
}
