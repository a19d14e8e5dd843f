import { InputCopies } from 'lib/session/notifier.js';

describe('InputCopies', () => {
  it('copies into other memory', () => {
    const data = Float32Array.of(1, 2, 3);
    const copy = new InputCopies().copy(data);
    expect(copy).toEqual(data);
    expect(copy.buffer).not.toBe(data.buffer);
  });

  it('copies a Buffer, which is taken for a uint8 tensor', () => {
    const data = Buffer.from([1, 2, 3]);
    const copy = new InputCopies().copy(data);
    data[0] = 9;
    expect([...copy]).toEqual([1, 2, 3]);
  });

  it('uses memory again once it is given back, for the same type and length only', () => {
    const copies = new InputCopies();
    const first = copies.copy(Float32Array.of(1, 2));
    expect(copies.copy(Float32Array.of(3, 4))).not.toBe(first);
    copies.reuse([first]);
    expect(copies.copy(Float32Array.of(5, 6, 7))).not.toBe(first);
    expect(copies.copy(Int32Array.of(5, 6))).not.toBe(first);
    const second = copies.copy(Float32Array.of(8, 9));
    expect(second).toBe(first);
    expect([...second]).toEqual([8, 9]);
    expect(copies.copy(Float32Array.of(8, 9))).not.toBe(first);
  });

  it('keeps some arrays, those given back last', () => {
    const copies = new InputCopies();
    const arrays = Array.from({ length: 74 }, (_, i) => copies.copy(Float32Array.of(i)));
    copies.reuse(arrays);
    const again = Array.from({ length: 74 }, () => copies.copy(Float32Array.of(0)));
    expect(arrays.map((array) => again.includes(array))).toEqual([false, false, ...Array(72).fill(true)]);
  });
});
