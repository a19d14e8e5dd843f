import { buildProgram } from 'lib/model/compile.js';
import { type GateForm, NO_ACTIVATION } from 'lib/model/program/program.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { type Agreement, expectAgreement, runModes, runProgram } from '../../helpers/run-program.js';

const SHAPE = [1, 4, 6, 6];
const ONE = [1, 1, 1, 1];
type Make = (b: IrBuilder, x: number) => number;

/** A network of a stem, the block that `make` builds, and a head. */
function network(make: Make): IrBuilder & { output: number } {
  const b = new IrBuilder();
  const x = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
  return Object.assign(b, { output: b.gemm(b.globalPool(make(b, x)), 3) });
}

function check(make: Make): Agreement {
  const b = network(make);
  return expectAgreement(b.build(b.output), 10);
}

/** Expects one gate that was open for some items and closed for others. */
function expectGate({ program, ran }: Agreement, form: GateForm): void {
  const gated = program.blocks.filter(({ gate }) => gate);
  expect(gated.map(({ gate }) => gate!.form)).toEqual([form]);
  expect(gated[0]!.skippable).toBe(true);
  expect(gated[0]!.shortcut).toBe('identity');
  const decisions = new Set(ran.map((blocks) => blocks[program.blocks.indexOf(gated[0]!)]));
  expect([...decisions].sort()).toEqual([0, 1]);
}

function expectNoGate({ program }: Agreement): void {
  expect(program.blocks.filter(({ gate }) => gate)).toEqual([]);
}

/** x + g*F(x), then relu. */
const sum = (b: IrBuilder, x: number, g: number) => b.act(b.binary('add', x, b.binary('mul', g, b.body(x))));
/** Scores around `SPLIT`, so that items differ. */
const SPLIT = 0.05;

describe('multiply: x + g*F(x)', () => {
  test('Greater and Cast', () =>
    expectGate(
      check((b, x) => sum(b, x, b.gate(x, SPLIT))),
      'multiply',
    ));

  test('operands in the other order', () => {
    const make: Make = (b, x) => b.act(b.binary('add', b.binary('mul', b.body(x), b.gate(x, SPLIT)), x));
    expectGate(check(make), 'multiply');
  });

  test.each(['gt', 'ge', 'lt', 'le'] as const)('threshold on either side of %s', (kind) => {
    const scoreFirst: Make = (b, x) => sum(b, x, hard(b, b.compare(kind, b.logits(x), b.constant(SPLIT))));
    const scoreLast: Make = (b, x) => sum(b, x, hard(b, b.compare(kind, b.constant(SPLIT), b.logits(x))));
    expectGate(check(scoreFirst), 'multiply');
    expectGate(check(scoreLast), 'multiply');
  });

  test('the threshold is the constant, rounded to float32', () => {
    const { program } = check((b, x) => sum(b, x, b.gate(x, 0.1)));
    expect(program.blocks[0]!.gate!.threshold).toBe(Math.fround(0.1));
  });

  test('Not, Where(cond, 1, 0), 1 - g', () => {
    const flag = (b: IrBuilder, x: number) => b.compare('lt', b.logits(x), b.constant(SPLIT));
    const not: Make = (b, x) => {
      const negated = b.step('logical', [flag(b, x)], { kind: 'not' }, [1, 1], 'bool');
      return sum(b, x, hard(b, negated));
    };
    const where: Make = (b, x) => {
      const chosen = b.where(flag(b, x), b.constant(Float32Array.of(0), [1, 1]), b.constant(1));
      return sum(b, x, b.reshape(chosen, ONE));
    };
    const complement: Make = (b, x) => sum(b, x, b.binary('sub', b.constant(1), hard(b, flag(b, x))));
    for (const make of [not, where, complement]) expectGate(check(make), 'multiply');
  });

  test('a soft score that is thresholded is the score', () => {
    const make: Make = (b, x) => {
      const soft = b.act(b.logits(x), 'sigmoid');
      return sum(b, x, hard(b, b.compare('gt', soft, b.constant(0.51))));
    };
    const agreement = check(make);
    expectGate(agreement, 'multiply');
    expect(agreement.program.blocks[0]!.gate!.threshold).toBe(Math.fround(0.51));
  });

  test('straight-through: hard - soft + soft', () => {
    const make: Make = (b, x) => {
      const soft = b.act(b.logits(x), 'sigmoid');
      const flag = b.cast(b.compare('gt', soft, b.constant(0.51)));
      const g = b.binary('add', b.binary('sub', flag, soft), soft);
      return sum(b, x, b.reshape(g, ONE));
    };
    expectGate(check(make), 'multiply');
  });

  test('hard + soft is no gate', () => {
    const make: Make = (b, x) => {
      const soft = b.act(b.logits(x), 'sigmoid');
      const flag = b.cast(b.compare('gt', soft, b.constant(0.51)));
      return sum(b, x, b.reshape(b.binary('add', flag, soft), ONE));
    };
    expectNoGate(check(make));
  });

  test('the body behind Where(cond, F(x), 0)', () => {
    const make: Make = (b, x) => {
      const flag = b.reshape(b.compare('gt', b.logits(x), b.constant(SPLIT)), ONE);
      const zeros = b.constant(new Float32Array(144), SHAPE);
      return b.act(b.binary('add', x, b.where(flag, b.body(x), zeros)));
    };
    expectGate(check(make), 'where');
  });

  test('two logits compared with each other', () => {
    const make: Make = (b, x) => {
      const logits = b.logits(x, 2);
      const [first, second] = [b.slice(logits, [0, 0], [1, 1]), b.slice(logits, [0, 1], [1, 1])];
      const flag = b.compare('lt', first, b.binary('add', second, b.constant(0.02)));
      return sum(b, x, hard(b, flag));
    };
    expectGate(check(make), 'multiply');
  });

  test('a bool input decides', () => {
    const b = new IrBuilder();
    const x = b.act(b.input(SHAPE));
    const flag = b.input(ONE, 'bool');
    const program = buildProgram(b.build(sum(b, x, b.cast(flag))));
    expect(program.blocks[0]!.gate).toBeDefined();
    const item = randomFloats(144, 1);
    expect(runProgram(program, [item, Uint8Array.of(1)]).ran).toEqual([1]);
    expect(runProgram(program, [item, Uint8Array.of(0)]).ran).toEqual([0]);
  });
});

describe('blend: g*F(x) + (1-g)*x', () => {
  const blend = (b: IrBuilder, x: number, body: number) => {
    const mask = b.step('expand', [b.gate(x, SPLIT)], {}, SHAPE);
    const rest = b.binary('sub', b.constant(1), mask);
    return b.binary('add', b.binary('mul', mask, body), b.binary('mul', rest, x));
  };

  test('with Expand', () =>
    expectGate(
      check((b, x) => blend(b, x, b.body(x))),
      'blend',
    ));

  test('around a body with its own sum and activation', () => {
    const agreement = check((b, x) => blend(b, x, b.act(b.binary('add', x, b.body(x)))));
    expectGate(agreement, 'blend');
    expect(agreement.program.blocks).toHaveLength(1);
  });

  test('two different gates are no blend, but a gate on one of the sums', () => {
    const make: Make = (b, x) => {
      const [f, g] = [b.gate(x, SPLIT), b.gate(b.act(x, 'tanh'), SPLIT)];
      return b.binary('add', b.binary('mul', f, b.body(x)), b.binary('mul', g, x));
    };
    const { program } = check(make);
    expect(program.blocks.map(({ gate }) => gate?.form)).not.toContain('blend');
  });

  test('a choice of two bodies is no gate', () => {
    const make: Make = (b, x) => {
      const gate = b.gate(x, SPLIT);
      const rest = b.binary('sub', b.constant(1), gate);
      const [first, second] = [b.act(b.body(x)), b.act(b.body(x))];
      return b.binary('add', b.binary('mul', gate, first), b.binary('mul', rest, second));
    };
    const { program } = check(make);
    expect(program.blocks.map(({ gate }) => gate?.form)).not.toContain('blend');
  });
});

describe('scaled: the 0 alone decides', () => {
  test.each([0.5, -2])('a gate times %s', (scale) => {
    expectGate(
      check((b, x) => sum(b, x, b.binary('mul', b.gate(x, SPLIT), b.constant(scale)))),
      'multiply',
    );
  });

  test('the body times a constant, behind the gate or before it', () => {
    const behind: Make = (b, x) => {
      const gated = b.binary('mul', b.gate(x, SPLIT), b.body(x));
      return b.act(b.binary('add', b.binary('mul', gated, b.constant(0.5)), x));
    };
    const before: Make = (b, x) => {
      const body = b.binary('mul', b.constant(0.5), b.body(x));
      return b.act(b.binary('sub', x, b.binary('mul', body, b.gate(x, SPLIT))));
    };
    for (const make of [behind, before]) expectGate(check(make), 'multiply');
  });

  test.each(['before', 'behind'])('times the probability itself, %s the reshape', (where) => {
    const make: Make = (b, x) => {
      const soft = b.act(b.logits(x), 'sigmoid');
      const flag = b.cast(b.compare('gt', soft, b.constant(0.51)));
      const g =
        where === 'before'
          ? b.reshape(b.binary('mul', flag, soft), ONE)
          : b.binary('mul', b.reshape(soft, ONE), b.reshape(flag, ONE));
      return sum(b, x, g);
    };
    expectGate(check(make), 'multiply');
  });
});

describe('choices of choices', () => {
  /** torch.lerp: from the nearer end. */
  const lerp = (b: IrBuilder, x: number, y: number, weight: number) => {
    const difference = b.binary('sub', y, x);
    const rest = b.binary('sub', b.constant(1), weight);
    return b.where(
      b.compare('lt', weight, b.constant(0.5)),
      b.binary('add', x, b.binary('mul', weight, difference)),
      b.binary('sub', y, b.binary('mul', difference, rest)),
    );
  };

  test('lerp, whose block counts once', () => {
    const agreement = check((b, x) => lerp(b, x, b.act(b.binary('add', x, b.body(x))), b.gate(x, SPLIT)));
    expectGate(agreement, 'where');
    expect(agreement.program.blocks).toHaveLength(1);
  });

  test('x + g*(F(x) - x), whose block counts once', () => {
    const agreement = check((b, x) => {
      const body = b.act(b.binary('add', x, b.body(x)));
      return b.binary('add', x, b.binary('mul', b.gate(x, SPLIT), b.binary('sub', body, x)));
    });
    expectGate(agreement, 'blend');
    expect(agreement.program.blocks).toHaveLength(1);
  });

  test.each(['lt', 'le'] as const)('assignment by index: p[p < t] = 0; p[p >= t] = 1, with %s', (kind) => {
    const make: Make = (b, x) => {
      const p = b.logits(x);
      const limit = b.constant(SPLIT);
      const low = b.where(b.compare(kind, p, limit), b.constant(Float32Array.of(0), [1, 1]), p);
      const high = b.compare('ge', low, limit);
      return sum(b, x, b.reshape(b.where(high, b.constant(Float32Array.of(1), [1, 1]), low), ONE));
    };
    expectGate(check(make), 'multiply');
  });

  test('assignment by index with a gap between the thresholds is no gate', () => {
    const make: Make = (b, x) => {
      const p = b.logits(x);
      const low = b.where(b.compare('lt', p, b.constant(0)), b.constant(Float32Array.of(0), [1, 1]), p);
      const high = b.compare('ge', low, b.constant(0.1));
      return sum(b, x, b.reshape(b.where(high, b.constant(Float32Array.of(1), [1, 1]), low), ONE));
    };
    expectNoGate(check(make));
  });

  test('Where in Where', () => {
    const make: Make = (b, x) => {
      const flag = b.reshape(b.compare('gt', b.logits(x), b.constant(SPLIT)), ONE);
      const body = b.where(flag, b.act(b.binary('add', x, b.body(x))), b.act(x, 'tanh'));
      return b.where(flag, body, x);
    };
    expectGate(check(make), 'where');
  });
});

describe('rounded scores', () => {
  test.each([
    ['round', (b: IrBuilder, p: number) => b.act(p, 'round')],
    ['floor', (b: IrBuilder, p: number) => b.act(b.binary('add', p, b.constant(0.5)), 'floor')],
    ['ceil', (b: IrBuilder, p: number) => b.act(b.binary('sub', p, b.constant(0.5)), 'ceil')],
    ['sign', (b: IrBuilder, p: number) => b.act(b.act(b.binary('sub', p, b.constant(0.5))), 'sign')],
    ['a cast', (b: IrBuilder, p: number) => b.cast(b.cast(b.binary('add', p, b.constant(0.5)), 'int64'))],
  ] as const)('%s of a probability', (_, rounded) => {
    const make: Make = (b, x) => {
      const soft = b.act(b.binary('sub', b.logits(x), b.constant(SPLIT)), 'sigmoid');
      return sum(b, x, b.reshape(rounded(b, soft), ONE));
    };
    expectGate(check(make), 'multiply');
  });

  test('round of a number of any size is no gate', () => {
    expectNoGate(check((b, x) => sum(b, x, b.reshape(b.act(b.logits(x), 'round'), ONE))));
  });
});

describe('argmax over two logits', () => {
  const argMax = (b: IrBuilder, x: number, selectLast = false) => {
    const logits = b.binary('add', b.logits(x, 2), b.constant(Float32Array.of(0.01, 0), [2]));
    return b.step('argMax', [logits], { axis: 1, selectLast }, [1], 'int64');
  };

  test.each([0, 1])('OneHot, run is class %s', (run) => {
    const make: Make = (b, x) => {
      const values = b.constant(Float32Array.of(0, 1), [2]);
      const hot = b.step('oneHot', [argMax(b, x), values], { axis: 1, depth: 2 }, [1, 2]);
      return sum(b, x, b.reshape(b.slice(hot, [0, run], [1, 1]), ONE));
    };
    expectGate(check(make), 'argmax');
  });

  test.each([
    [0, 1],
    [1, 0],
  ])('Gather from [%s, %s]', (zero, one) => {
    const make: Make = (b, x) => {
      const table = b.constant(Float32Array.of(zero, one), [2]);
      return sum(b, x, b.reshape(b.step('gather', [table, argMax(b, x)], { axis: 0 }, [1]), ONE));
    };
    expectGate(check(make), 'argmax');
  });

  test.each([0, 1])('ScatterElements on zeros, run is class %s', (run) => {
    const make: Make = (b, x) => {
      const zeros = b.constant(new Float32Array(2), [1, 2]);
      const one = b.constant(Float32Array.of(1), [1, 1]);
      const chosen = b.reshape(argMax(b, x), [1, 1]);
      const attrs = { axis: 1, reduction: 'set' } as const;
      const hot = b.step('scatterElements', [zeros, chosen, one], attrs, [1, 2]);
      return sum(b, x, b.reshape(b.slice(hot, [0, run], [1, 1]), ONE));
    };
    expectGate(check(make), 'argmax');
  });

  test.each([true, false])('Equal, Cast; the last of equal maxima: %s', (selectLast) => {
    const make: Make = (b, x) => {
      const flag = b.compare('eq', argMax(b, x, selectLast), b.constant(BigInt64Array.of(1n)));
      return sum(b, x, b.reshape(b.cast(flag), ONE));
    };
    const agreement = check(make);
    expectGate(agreement, 'argmax');
    expect(agreement.program.blocks[0]!.gate!.compare).toBe(selectLast ? 'ge' : 'gt');
  });

  test('of more than two classes is a gate by its flag', () => {
    const make: Make = (b, x) => {
      const logits = b.binary('add', b.logits(x, 3), b.constant(Float32Array.of(0.01, 0, 0), [3]));
      const index = b.step('argMax', [logits], { axis: 1, selectLast: false }, [1], 'int64');
      return sum(b, x, b.reshape(b.cast(b.compare('eq', index, b.constant(BigInt64Array.of(0n)))), ONE));
    };
    const agreement = check(make);
    const [block] = agreement.program.blocks;
    expect(block!.gate).toMatchObject({ compare: 'gt', threshold: 0.5 });
  });
});

describe('where and if', () => {
  test.each([true, false])('Where with F(x) first: %s', (first) => {
    const make: Make = (b, x) => {
      const flag = b.reshape(b.compare('gt', b.logits(x), b.constant(SPLIT)), ONE);
      const body = b.act(b.binary('add', x, b.body(x)));
      return first ? b.where(flag, body, x) : b.where(flag, x, body);
    };
    expectGate(check(make), 'where');
  });

  test.each([true, false])('If with F(x) in the then branch: %s', (first) => {
    const make: Make = (b, x) => {
      const flag = b.reshape(b.compare('gt', b.logits(x), b.constant(SPLIT)), []);
      const body = (branch: IrBuilder) => branch.act(branch.binary('add', x, branch.body(x)));
      const pass = (branch: IrBuilder) => branch.reshape(x, SHAPE);
      return first ? b.branches(flag, SHAPE, body, pass) : b.branches(flag, SHAPE, pass, body);
    };
    expectGate(check(make), 'if');
  });

  test('an If with two bodies branches', () => {
    const make: Make = (b, x) => {
      const flag = b.reshape(b.compare('gt', b.logits(x), b.constant(SPLIT)), []);
      return b.branches(
        flag,
        SHAPE,
        (branch) => branch.act(branch.body(x)),
        (branch) => branch.act(branch.conv(x, 4), 'tanh'),
      );
    };
    const agreement = check(make);
    expectNoGate(agreement);
    expect(agreement.program.steps.map(({ op }) => op)).toEqual(expect.arrayContaining(['branch', 'jump']));
  });

  test('Where by a mask over the image is no gate', () => {
    const make: Make = (b, x) => b.where(b.compare('gt', x, b.constant(0.1)), b.body(x), x);
    expectNoGate(check(make));
  });
});

describe('soft factors are no gates', () => {
  test('squeeze-and-excitation', () => {
    const make: Make = (b, x) => {
      const body = b.body(x);
      const scale = b.reshape(b.act(b.logits(body, 4), 'sigmoid'), [1, 4, 1, 1]);
      return b.act(b.binary('add', x, b.binary('mul', body, scale)));
    };
    const agreement = check(make);
    expectNoGate(agreement);
    expect(agreement.program.blocks).toHaveLength(1);
  });

  test.each(['sigmoid', 'hardSigmoid', 'tanh', 'relu'] as const)('%s of one score', (kind) => {
    const make: Make = (b, x) => sum(b, x, b.reshape(b.act(b.logits(x), kind, 0.2, 0.5), ONE));
    expectNoGate(check(make));
  });

  test('hard factors other than 0', () => {
    const make: Make = (b, x) => {
      const factor = b.binary('add', b.binary('mul', b.gate(x, SPLIT), b.constant(0.5)), b.constant(0.25));
      return sum(b, x, factor);
    };
    expectNoGate(check(make));
  });

  test('a hard mask of the channels', () => {
    const make: Make = (b, x) => {
      const flags = b.cast(b.compare('gt', b.logits(x, 4), b.constant(SPLIT)));
      return sum(b, x, b.reshape(flags, [1, 4, 1, 1]));
    };
    expectNoGate(check(make));
  });

  test('a decision for each of several items that run as one', () => {
    const b = new IrBuilder();
    const x = b.act(b.input([2, 4, 6, 6]));
    const flags = b.reshape(b.cast(b.compare('gt', b.logits(x), b.constant(SPLIT))), [2, 1, 1, 1]);
    expectNoGate(expectAgreement(b.build(sum(b, x, flags))));
  });

  test('a gate whose body something else reads', () => {
    const make: Make = (b, x) => {
      const body = b.act(b.body(x));
      const gated = b.binary('add', x, b.binary('mul', b.gate(x, SPLIT), body));
      return b.binary('add', gated, b.act(body, 'tanh'));
    };
    const { program } = check(make);
    for (const block of program.blocks.filter(({ gate }) => gate)) {
      expect(program.steps.slice(block.first, block.end).map(({ op }) => op)).not.toContain('conv');
    }
  });
});

test('one policy network decides for all blocks, with scores gathered and sliced', () => {
  const make: Make = (b, x) => {
    const scores = b.binary('add', b.logits(x, 3), b.constant(Float32Array.of(-0.05, 0.02, 0.1), [3]));
    const flags = b.cast(b.compare('gt', scores, b.constant(0)));
    const first = b.reshape(b.slice(flags, [0, 0], [1, 1]), ONE);
    const second = b.reshape(
      b.step('gather', [flags, b.constant(BigInt64Array.of(1n))], { axis: 1 }, [1]),
      ONE,
    );
    const turned = b.step('transpose', [flags], { perm: [1, 0] }, [3, 1]);
    const third = b.reshape(b.slice(turned, [2, 0], [1, 1]), ONE);
    return [first, second, third].reduce((y, g) => sum(b, y, g), x);
  };
  const { program, ran } = check(make);
  expect(program.blocks.map(({ gate }) => gate?.form)).toEqual(['multiply', 'multiply', 'multiply']);
  expect(new Set(ran.map((blocks) => blocks.join())).size).toBeGreaterThan(1);
});

describe('what a skipped block still owes', () => {
  test('nothing, when the stream is known not to be negative', () => {
    const { program } = check((b, x) => sum(b, x, b.gate(x, SPLIT)));
    expect(program.blocks[0]!.skipActivation).toEqual(NO_ACTIVATION);
  });

  test('the relu, when the stream may be negative', () => {
    const agreement = check((b, x) => {
      const y = b.conv(x, 4);
      return sum(b, y, b.gate(b.act(y, 'leakyRelu', -1)));
    });
    expectGate(agreement, 'multiply');
    expect(agreement.program.blocks[0]!.skipActivation.kind).toBe('relu');
  });

  test.each(['where', 'if'] as const)('the relu that stands on both ways of %s', (form) => {
    const agreement = check((b, x) => {
      const y = b.conv(x, 4);
      const flag = b.compare('gt', b.logits(b.act(y, 'leakyRelu', -1)), b.constant(0));
      const run = (at: IrBuilder) => at.act(at.binary('add', y, at.body(y)));
      if (form === 'if') return b.branches(b.reshape(flag, []), SHAPE, run, (branch) => branch.act(y));
      return b.where(b.reshape(flag, ONE), run(b), b.act(y));
    });
    expectGate(agreement, form);
    expect(agreement.program.blocks[0]!.skipActivation.kind).toBe('relu');
  });

  test('the clip, unless the stream was clipped alike', () => {
    const clipped = (bound: number) =>
      check((b, x) => {
        const y = b.act(x, 'clip', 0, bound);
        const total = b.binary('add', y, b.binary('mul', b.gate(y, SPLIT), b.body(y)));
        return b.act(total, 'clip', 0, 0.5);
      }).program.blocks[0]!.skipActivation.kind;
    expect(clipped(0.5)).toBe('none');
    expect(clipped(1)).toBe('clip');
  });
});

test('with every gate open, the program is the network with g = 1', () => {
  const gated = network((b, x) => sum(b, x, b.gate(x, SPLIT)));
  const open = network((b, x) => {
    b.gate(x, SPLIT);
    return b.act(b.binary('add', x, b.body(x)));
  });
  const [a, c] = [gated, open].map((b) => expectAgreement(b.build(b.output)).program);
  for (let seed = 0; seed < 5; seed++) {
    const item = [randomFloats(108, seed)];
    expect(runProgram(a!, item, runModes(a!)).output).toEqual(runProgram(c!, item, runModes(c!)).output);
  }
});

function hard(b: IrBuilder, flag: number): number {
  return b.reshape(b.cast(flag), ONE);
}
