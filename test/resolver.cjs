// As tsc does it: in the project's own files, './x.js' is './x.ts'.
module.exports = (request, options) => {
  const source = /^(\.{1,2}\/.*)\.js$/.exec(request);
  if (!source || options.basedir.includes('node_modules')) return options.defaultResolver(request, options);
  try {
    return options.defaultResolver(`${source[1]}.ts`, options);
  } catch {
    return options.defaultResolver(request, options);
  }
};
