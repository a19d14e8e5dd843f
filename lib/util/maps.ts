/** Adds a value to the list that a map has for a key. */
export function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

/** Adds `value` to a map of what was made of late, and drops the first of more than `max` entries; returns it. */
export function keepRecent<K, V>(map: Map<K, V>, key: K, value: V, max = 32): V {
  map.set(key, value);
  if (map.size > max) map.delete(map.keys().next().value!);
  return value;
}
