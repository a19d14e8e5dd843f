// Bundles lib/ for the published package: CommonJS chunks that the entry points share, so that `require` reads few files. What
// only some programs use is in chunks of its own, which load when it is called.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { parseAst } from 'rolldown/parseAst';
import { z } from 'zod';

const ROOT = resolve(import.meta.dirname, '..');
const LIB = join(ROOT, 'lib');

/** Asynchronous functions by the file that exports them: for these importers, a file loads when one of its functions is called. */
const IMPORTERS = [
  ...['index', 'session/session', 'session/parts', 'session/fronts', 'session/open'],
  'session/stored/network',
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

/** Generators by the file that exports them, which load in the same way, within the call. Each file has a chunk of its name. */
const LATE_GENERATORS = { 'session/network': ['reloadNetwork'] };

/** Functions of Node's modules that take long to load, and that few programs call. */
const LATE_BUILTINS = {
  'node:crypto': [
    ...['createHash', 'createPrivateKey', 'createPublicKey', 'hash', 'randomBytes', 'randomUUID'],
    ...['sign', 'timingSafeEqual', 'verify'],
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
    if (importer?.startsWith(LATE_PREFIX) && source.startsWith('./')) return { id: source, external: true };
    if (source === SCHEMAS) return SCHEMAS;
    return source === 'zod' && importer.startsWith(LIB) ? LATE_PREFIX + source : null;
  },
  load(id) {
    if (id === SCHEMAS) {
      const zod = JSON.stringify(fileURLToPath(import.meta.resolve('zod')));
      return `import { z as all } from ${zod};\nexport const z = { ${usedOfZod().map((name) => `${name}: all.${name}`)} };`;
    }
    if (id !== `${LATE_PREFIX}zod`) return null;
    return `export const z = new Proxy({}, { get: (_, name) => require('./schemas.js').z[name] });`;
  },
};

const LATE_PREFIX = '\0late:';
const late = {
  name: 'late',
  resolveId(source, importer) {
    if (source in LATE_BUILTINS) return importer.startsWith(LATE_PREFIX) ? null : LATE_PREFIX + source;
    if (!IMPORTERS.includes(importer)) return null;
    const file = relative(LIB, resolve(importer, '..', source)).replace(/\.js$/, '');
    return file in LATE ? LATE_PREFIX + file : null;
  },
  load(id) {
    if (!id.startsWith(LATE_PREFIX)) return null;
    const file = id.slice(LATE_PREFIX.length);
    if (file in LATE_BUILTINS)
      return LATE_BUILTINS[file]
        .map((name) => `export const ${name} = (...args) => require('${file}').${name}(...args);`)
        .join('\n');
    const path = JSON.stringify(join(LIB, `${file}.ts`));
    const chunk = JSON.stringify(`./${basename(file)}.js`);
    return [
      ...LATE[file].map(
        (name) =>
          `export async function ${name}(...args) { return (await import(${path})).${name}(...args); }`,
      ),
      ...(LATE_GENERATORS[file] ?? []).map(
        (name) => `export function* ${name}(...args) { return yield* require(${chunk}).${name}(...args); }`,
      ),
    ].join('\n');
  },
};

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
  JSON.stringify(parseAst(code), (_key, node) => {
    if (node?.type === 'TemplateElement') literals.push(node);
    return typeof node === 'bigint' ? null : node;
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
      ...Object.fromEntries(
        Object.keys(LATE_GENERATORS).map((file) => [`chunks/${basename(file)}`, join(LIB, `${file}.ts`)]),
      ),
    },
    platform: 'node',
    tsconfig: false,
    external,
    // Of ES modules, what nothing uses is left out.
    resolve: { mainFields: ['module', 'main'] },
    transform: { define: { RESIDUAL_SKIP_VERSION: JSON.stringify(version) } },
    plugins: [schemas, late, flush],
    onLog(level, log) {
      if (level === 'warn') throw new Error(log.message);
    },
  });
  await build.write({
    dir: dist,
    format: 'cjs',
    exports: 'named',
    chunkFileNames: 'chunks/[name].js',
    // Less to parse. Functions and classes keep their names, and lines stay lines: Node prints the line that an error is from.
    minify: { compress: false, mangle: { keepNames: true }, codegen: false },
    comments: false,
  });
  writeFileSync(join(dist, 'third-party-licences.txt'), licences());
}
