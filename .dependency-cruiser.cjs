// Imports in lib/ run one way: a layer imports from itself and from the lines above it, never from its own line's
// neighbours or from below. A name is a folder (lib/NAME/) or a file (lib/NAME.ts).
const layers = [
  ['errors'],
  ['util', 'tensor', 'numeric'],
  ['client'],
  ['kernels'],
  ['model/program', 'model/read'],
  ['model/lower'],
  ['model/optimise'],
  ['model/blocks'],
  ['model/(?:load|compile|length-[a-z]+)'],
  ['skip'],
  ['backends'],
  ['session'],
  ['data'],
  ['inspect', 'classify'],
  ['report'],
  ['calibrate/(?:options|losses|run)'],
  ['calibrate/certify'],
  ['calibrate/(?:split|task)'],
  ['calibrate/fit'],
  ['calibrate/order'],
  ['calibrate/report'],
  [
    'calibrate/(?:calibrate|checks|classes|data|policy|prepared|promised|ranking|strategy|vectors)',
    'quantize',
    'audit',
    'measure',
  ],
  ['speedup'],
  ['index'],
  ['cli'],
];
/** Lines whose names may import from each other. */
const open = new Set(['util']);

const inLayers = (names) => `^lib/(${names.join('|')})(/|[.]c?ts$)`;

const oneWay = layers.flatMap((line, at) => {
  const later = layers.slice(at + 1).flat();
  const groups = open.has(line[0]) ? [line] : line.map((name) => [name]);
  return groups.map((group) => ({
    name: `${group[0]}-imports-from-the-layers-before-it`,
    severity: 'error',
    from: { path: inLayers(group) },
    to: { path: inLayers([...later, ...line.filter((name) => !group.includes(name))].concat('$^')) },
  }));
});

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...oneWay,
    {
      name: 'every-file-has-a-layer',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^lib/', pathNot: inLayers(layers.flat()) },
    },
    { name: 'no-circle', severity: 'error', from: { path: '^(lib|server/src)/' }, to: { circular: true } },
    {
      name: 'a-backend-knows-nothing-of-onnx',
      severity: 'error',
      from: { path: '^lib/backends/' },
      to: { path: '^lib/model/(read|lower)/' },
    },
    { name: 'resolvable', severity: 'error', from: { path: '^lib/' }, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node'] },
  },
};
