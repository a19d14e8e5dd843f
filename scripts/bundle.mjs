// Bundles lib/ for the published package: CommonJS chunks that the entry points share, so that `require` reads few files. What
// only some programs use is in chunks of its own, which load when it is called.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, posix, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { parseAst } from 'rolldown/parseAst';
import { z } from 'zod';

const ROOT = resolve(import.meta.dirname, '..');
const LIB = join(ROOT, 'lib');

/** Asynchronous functions by the file that exports them: for these importers, a file loads when one of its functions is called. */
const IMPORTERS = [
  ...['index', 'session/session', 'session/parts', 'session/fronts', 'session/open'],
  ...['session/open-network', 'session/stored/network'],
].map((name) => join(LIB, `${name}.ts`));
const LATE = {
  'audit/render': ['renderAudit'],
  'audit/replay': ['replayAudit'],
  'backends/reference': ['createReference'],
  'calibrate/calibrate': ['calibrate'],
  'calibrate/ranking': ['calibrateRanking'],
  'calibrate/report/report': ['renderCalibration'],
  'inspect/inspect': ['inspect'],
  'measure/evaluate': ['evaluate'],
  'model/load': ['loadModel'],
  'quantize/quantize': ['quantize'],
  'session/fronts': ['loadFronts'],
  'session/network': ['loadNetwork'],
  'session/open': ['openRunner'],
  'session/stored/network': ['openStored'],
  'session/tail': ['openTail'],
  'speedup/folder': ['writeLadder'],
  'speedup/report': ['renderSpeedup'],
  'speedup/speedup': ['speedup'],
};

/**
 * Functions and classes that a plain session doesn't need, by chunk and by the file that exports them: for these importers, the chunk
 * loads when a function is called, or when a class is used in any way.
 */
const ON_CALL = {
  audit: {
    importers: ['index'],
    files: {
      'audit/inputs': ['storedInputs'],
      'audit/log': ['auditLog'],
      'audit/read': ['readAudit'],
      'audit/watch': ['watch'],
    },
  },
  classify: {
    importers: ['index'],
    files: {
      'classify/embedder': ['Embedder'],
      'classify/image-classifier': ['ImageClassifier'],
      'classify/object-detector': ['ObjectDetector'],
      'classify/reranker': ['Reranker'],
      'classify/segmenter': ['Segmentation', 'Segmenter'],
      'classify/text-classifier': ['TextClassifier'],
      'data/image-header': ['decodingBytes', 'pixelsOf'],
      'data/preprocess': ['Preprocessor'],
    },
  },
  decisions: {
    importers: ['model/compile'],
    files: {
      'model/blocks/exits': ['detachExits', 'placeExits'],
      'model/blocks/gates': ['recogniseGates'],
      'model/blocks/unusable-gates': ['unusableGates'],
    },
  },
  folding: {
    importers: [
      ...['backends/reference', 'model/lower/fold', 'model/lower/operators/scatter'],
      'model/optimise/quantised-value',
    ],
    files: { 'kernels/index': ['activate', 'runStep'], 'kernels/scatter': ['integersIn'] },
  },
  integers: {
    importers: ['model/blocks/exits', 'model/compile'],
    files: { 'model/optimise/integer': ['integerise'] },
  },
  lengths: {
    importers: ['model/length-series'],
    files: { 'model/length-proof': ['isLinear', 'outlineOf'] },
  },
  operators: {
    importers: ['model/lower/operators/index'],
    files: { 'model/lower/operators/rare': ['findRareOperator'] },
  },
  texts: {
    importers: ['model/lower/operators/index'],
    files: { 'model/lower/operators/text': ['findTextOperator'] },
  },
  network: {
    importers: ['session/stored/network'],
    files: { 'session/network': ['reloadNetwork'] },
  },
  policies: {
    importers: [
      ...['index', 'session/known-fronts', 'session/own-policy', 'session/program-cache'],
      ...['skip/compiled-policy', 'skip/load-policy'],
    ],
    files: {
      'skip/attach': ['attachExits'],
      'skip/fronts': ['withFronts'],
      'skip/head-codec': ['decodeExits'],
      'skip/policy': ['hashPolicy', 'hashPromised', 'parsePolicy'],
    },
  },
};

/** Functions of Node's modules that take long to load, and that few programs call. */
const LATE_BUILTINS = {
  'node:crypto': [
    ...['createHash', 'createPrivateKey', 'createPublicKey', 'hash', 'randomBytes', 'randomUUID'],
    ...['sign', 'timingSafeEqual', 'verify'],
  ],
  'node:fs/promises': [
    'access',
    'copyFile',
    'mkdir',
    'open',
    'opendir',
    'readFile',
    'readdir',
    'realpath',
    'rename',
    'rm',
    'rmdir',
    'stat',
    'writeFile',
  ],
  'node:readline': ['createInterface'],
};

/** Dependencies that are bundled: as packages of about a hundred files each they take longer to load than all else. */
export const BUNDLED = ['zod', '@protobuf-ts/runtime'];

/** Of zod, the bundle has what the library uses, in a chunk that loads when a schema is first made. */
const SCHEMAS = '\0schemas';
const usedOfZod = () => {
  const sources = readdirSync(LIB, { recursive: true }).filter((name) => name.endsWith('.ts'));
  const uses = sources.flatMap((name) => [
    ...readFileSync(join(LIB, name), 'utf8').matchAll(/\bz\s*\.(\w+)/g),
  ]);
  return [...new Set(uses.map(([, name]) => name))].filter(
    (name) => typeof z[name] === 'function' || name === 'iso',
  );
};
const schemas = {
  name: 'schemas',
  resolveId(source, importer) {
    if (source === SCHEMAS) return SCHEMAS;
    return source === 'zod' && importer.startsWith(LIB) ? LATE_PREFIX + source : null;
  },
  load(id) {
    if (id === SCHEMAS) {
      const zod = JSON.stringify(fileURLToPath(import.meta.resolve('zod')));
      return `import { z as all } from ${zod};\nexport const z = { ${usedOfZod().map((name) => `${name}: all.${name}`)} };`;
    }
    if (id !== `${LATE_PREFIX}zod`) return null;
    return `export const z = new Proxy({}, { get: (_, name) => require('${pathOf('schemas')}').z[name] });`;
  },
};

const [LATE_PREFIX, CHUNK_PREFIX] = ['\0late:', '\0chunk:'];
/** What `placeChunks` replaces by the path of a chunk. */
const pathOf = (chunk) => `late-chunk:${chunk}`;
const onCall = (file, importer) =>
  Object.entries(ON_CALL).find(
    ([, { importers, files }]) =>
      file in files && importers.some((name) => importer === join(LIB, `${name}.ts`)),
  )?.[0];

/** A class that loads when it is first used. */
const LATE_CLASS = `const lateClass = (name, load) =>
  new Proxy({ [name]: function () {} }[name], Object.fromEntries(
    ['apply', 'construct', 'defineProperty', 'deleteProperty', 'get', 'has', 'set'].map(
      (trap) => [trap, (_, ...rest) => Reflect[trap](load(), ...rest)])));`;

const late = {
  name: 'late',
  resolveId(source, importer) {
    if (source.startsWith(CHUNK_PREFIX)) return source;
    if (source.startsWith(pathOf(''))) return { id: source, external: true };
    if (source in LATE_BUILTINS) return importer.startsWith(LATE_PREFIX) ? null : LATE_PREFIX + source;
    if (!importer?.startsWith(LIB)) return null;
    const file = relative(LIB, resolve(importer, '..', source)).replace(/\.js$/, '');
    if (onCall(file, importer) || (file in LATE && IMPORTERS.includes(importer))) {
      return `${LATE_PREFIX}${file}?${onCall(file, importer) ?? ''}`;
    }
    return null;
  },
  load(id) {
    if (id.startsWith(CHUNK_PREFIX)) {
      const { files } = ON_CALL[id.slice(CHUNK_PREFIX.length)];
      return Object.entries(files)
        .map(([file, names]) => `export { ${names} } from ${JSON.stringify(join(LIB, `${file}.ts`))};`)
        .join('\n');
    }
    if (!id.startsWith(LATE_PREFIX)) return null;
    const [file, chunk] = id.slice(LATE_PREFIX.length).split('?');
    if (file in LATE_BUILTINS)
      return LATE_BUILTINS[file]
        .map((name) => `export const ${name} = (...args) => require('${file}').${name}(...args);`)
        .join('\n');
    const path = JSON.stringify(join(LIB, `${file}.ts`));
    // A call of `require` takes microseconds, and lowering calls some of these for every node.
    const loaded = `(loaded ??= require('${pathOf(chunk)}'))`;
    const names = (chunk && ON_CALL[chunk].files[file]) || [];
    return [
      LATE_CLASS,
      'let loaded;',
      ...names.map((name) =>
        /^[A-Z]/.test(name)
          ? `export const ${name} = /* @__PURE__ */ lateClass('${name}', () => ${loaded}.${name});`
          : `export const ${name} = (...args) => ${loaded}.${name}(...args);`,
      ),
      ...(LATE[file] ?? []).map(
        (name) =>
          `export async function ${name}(...args) { return (await import(${path})).${name}(...args); }`,
      ),
    ].join('\n');
  },
};

/** Chunks are required by their paths from the file at hand. */
const placeChunks = {
  name: 'place-chunks',
  generateBundle(_options, files) {
    for (const file of Object.values(files)) {
      if (file.type !== 'chunk') continue;
      file.code = file.code.replace(/late-chunk:(\w+)/g, (_, chunk) => {
        const path = posix.relative(posix.dirname(file.fileName), `chunks/${chunk}.js`);
        return path.startsWith('.') ? path : `./${path}`;
      });
    }
  },
};

/**
 * Chunks of what is loaded together: files, unless they are entry points, with their imports, but for what an earlier chunk has. Each
 * chunk takes time to find and read.
 */
const TOGETHER = [
  ['base', 'client/index'],
  ['main', 'index'],
  ['stored', 'session/stored/network'],
  ['runner', 'session/open'],
  ['lowering', 'session/network', 'kernels/activation', 'kernels/float-rows'],
];
const chunkOf = new Map();
const together = {
  name: 'together',
  buildEnd() {
    for (const [chunk, ...files] of TOGETHER) {
      const add = (id) => {
        const found = this.getModuleInfo(id);
        if (chunkOf.has(id) || !found) return;
        if (!found.isEntry) chunkOf.set(id, chunk);
        found.importedIds.forEach(add);
      };
      for (const file of files) add(join(LIB, `${file}.ts`));
    }
  },
};

/** Getters of what a chunk exports to others are a seventh of them: where a binding doesn't change, its value is enough. */
const values = {
  name: 'values',
  generateBundle(_options, files) {
    for (const file of Object.values(files)) if (file.type === 'chunk') file.code = withoutGetters(file.code);
  },
};

function withoutGetters(code) {
  const ast = parseAst(code);
  const assigned = new Set();
  walk(ast, ({ type, left, argument }) => {
    if (type === 'UpdateExpression') assigned.add(argument.name);
    if (type === 'AssignmentExpression' && left.type === 'Identifier') assigned.add(left.name);
    if (left?.type.endsWith('Pattern')) walk(left, ({ name }) => assigned.add(name));
  });
  let kept = '';
  let at = 0;
  for (const { type, start, end, expression } of ast.body) {
    if (type !== 'ExpressionStatement' || expression.callee?.object?.name !== 'Object') continue;
    const [target, name, { properties } = {}] = expression.arguments;
    const getter = properties?.find(({ key }) => key.name === 'get')?.value.body.body[0].argument.name;
    if (target.name !== 'exports' || !getter || assigned.has(getter)) continue;
    kept += `${code.slice(at, start)}exports.${name.value} = ${getter};`;
    at = end;
  }
  return kept + code.slice(at);
}

/** Shows every node of a syntax tree. */
function walk(tree, visit) {
  JSON.stringify(tree, (_key, node) => {
    if (node?.type) visit(node);
    return typeof node === 'bigint' ? null : node;
  });
}

/** Indentation is a twentieth of the bundle: it goes, but for that inside of template literals. Lines stay lines. */
const flush = {
  name: 'flush',
  generateBundle(_options, files) {
    for (const file of Object.values(files))
      if (file.type === 'chunk') file.code = withoutIndentation(file.code);
  },
};

function withoutIndentation(code) {
  const literals = [];
  walk(parseAst(code), (node) => {
    if (node.type === 'TemplateElement') literals.push(node);
  });
  literals.sort((a, b) => a.start - b.start);
  let next = 0;
  return code.replace(/^\t+/gm, (indentation, at) => {
    while (next < literals.length && literals[next].end < at) next++;
    return next < literals.length && literals[next].start <= at ? indentation : '';
  });
}

/** The licences of the dependencies whose code is in the bundle. */
function licences() {
  return BUNDLED.map((name) => {
    const folder = join(ROOT, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? readFileSync(join(folder, file), 'utf8').trim() : '';
    return `${name} ${version} (${license})\n\n${text}\n`;
  }).join('\n');
}

/** Writes the bundle into the folder `dist`, beside the declarations there. */
export async function bundle(dist) {
  const { dependencies, peerDependencies, version } = JSON.parse(
    readFileSync(join(ROOT, 'package.json'), 'utf8'),
  );
  const packages = Object.keys({ ...dependencies, ...peerDependencies });
  const external = packages.filter((name) => !BUNDLED.includes(name));
  const build = await rolldown({
    input: {
      ...Object.fromEntries(
        ['index', 'client/index', 'cli/main'].map((name) => [name, join(LIB, `${name}.ts`)]),
      ),
      'chunks/schemas': SCHEMAS,
      ...Object.fromEntries(Object.keys(ON_CALL).map((chunk) => [`chunks/${chunk}`, CHUNK_PREFIX + chunk])),
    },
    platform: 'node',
    tsconfig: false,
    external,
    // Of ES modules, what nothing uses is left out.
    resolve: { mainFields: ['module', 'main'] },
    transform: { define: { RESIDUAL_SKIP_VERSION: JSON.stringify(version) } },
    plugins: [schemas, late, together, placeChunks, values, flush],
    onLog(level, log) {
      if (level === 'warn') throw new Error(log.message);
    },
  });
  await build.write({
    dir: dist,
    format: 'cjs',
    exports: 'named',
    chunkFileNames: 'chunks/[name].js',
    codeSplitting: {
      groups: TOGETHER.map(([name]) => ({ name, test: (id) => chunkOf.get(id) === name })),
    },
    // Less to parse. Functions and classes keep their names, and lines stay lines: Node prints the line that an error is from.
    minify: { compress: false, mangle: { keepNames: true }, codegen: false },
    comments: false,
  });
  writeFileSync(join(dist, 'third-party-licences.txt'), licences());
}
