/** Names the first exit before the first block; further ones have a number behind it. Names of blocks begin with no slash. */
export const INPUT = '/input';

/**
 * Names every block after the ONNX nodes in it: by the path that they share, because exporters write module paths
 * (`/layer1/layer1.0/conv1/Conv` and `/layer1/layer1.0/Add` give `layer1.0`). Blocks without such a path, or with the
 * path of another block, are named `block<index>`.
 */
export function blockNames(nodes: readonly (readonly string[])[]): string[] {
  const paths = nodes.map(sharedPath);
  const counts = new Map<string, number>();
  for (const path of paths) counts.set(path, (counts.get(path) ?? 0) + 1);
  const names = new Set(paths.filter((path) => path !== '' && counts.get(path) === 1));
  return paths.map((path, i) => {
    if (names.has(path)) return path;
    let name = `block${i}`;
    while (names.has(name)) name += '_';
    names.add(name);
    return name;
  });
}

function sharedPath(nodes: readonly string[]): string {
  const paths = nodes.map((node) => node.split('/').slice(0, -1));
  const [first = [], ...others] = paths;
  const length = first.findIndex((segment, i) => others.some((other) => other[i] !== segment));
  const shared = first.slice(0, length < 0 ? first.length : length).filter((segment) => segment !== '');
  return shared.filter((segment, i) => !shared[i + 1]?.startsWith(`${segment}.`)).join('/');
}
