/**
 * What is made when it is first asked for, such as a schema: most programs need few of them, and the library that makes them takes
 * longer to load than a small network.
 */
export function late<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
