/** Classes by their labels, which several may share: ImageNet has two of "crane". */

/** The index of the class with a label; undefined if there is none, and `several` if there are more. */
export function classWith(label: string, labels: readonly string[]): number | 'several' | undefined {
  const first = labels.indexOf(label);
  if (first < 0) return undefined;
  return labels.includes(label, first + 1) ? 'several' : first;
}
