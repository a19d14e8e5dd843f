// As tsc does it: in the project's own files, './x.js' is './x.ts' and './x.cjs' is './x.cts'.
const TYPESCRIPT = { '.js': '.ts', '.cjs': '.cts' };

module.exports = (request, options) => {
  const source = /^(\.{1,2}\/.*)(\.c?js)$/.exec(request);
  if (!source || options.basedir.includes('node_modules')) return options.defaultResolver(request, options);
  try {
    return options.defaultResolver(source[1] + TYPESCRIPT[source[2]], options);
  } catch {
    return options.defaultResolver(request, options);
  }
};
