/** A policy whose exits read each other: the same bits everywhere, and what its audit log says is replayed. */
import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import type { InferenceSession, SkipPolicy, Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import type { ExitSpec } from 'lib/skip/exits.js';
import { type Layer, widthOf } from 'lib/skip/head.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import '../../helpers/few-timed.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { Network } from '../../helpers/networks.js';
import { randomFloats } from '../../helpers/random.js';
import { availableIsas, withSession } from '../../helpers/sessions.js';

const NETWORK = new Network('cifar10-resnet32');
const HIDDEN = 8;
/** Blocks of three stages. */
const PLACES = [2, 6, 11];

afterAll(removeFolders);

function layer(outputs: number, inputs: number, seed: number): Layer {
  const scale = 2 / Math.sqrt(inputs);
  return {
    weight: randomFloats(outputs * inputs, seed).map((x) => scale * x),
    bias: randomFloats(outputs, seed + 1),
  };
}

/** Heads with weights at random; of the items that come to an exit, about half are sure enough of their answer. */
async function policyOf(threshold: number): Promise<SkipPolicy> {
  const model = await loadModel(NETWORK.model);
  const program = compileModel(model, new Map([['input', { shape: [1, 3, 32, 32] }]]));
  const exits = PLACES.map((place, i): ExitSpec => {
    const block = program.blocks[place]!;
    const inputs = widthOf('pyramid', program.values[block.output]!.shape) + (i > 0 ? HIDDEN : 0);
    return {
      ...{ after: block.name, threshold },
      ...(i > 0 && { reads: program.blocks[PLACES[i - 1]!]!.name }),
      head: {
        features: 'pyramid',
        layers: [layer(HIDDEN, inputs, 10 * i + 1), layer(10, HIDDEN, 10 * i + 3)],
      },
    };
  });
  return { heads: encodeExits(exits) };
}

async function decisions(session: InferenceSession, input: Tensor) {
  const { outputs, trace } = await session.runTraced({ input });
  const bits = Buffer.from((outputs.logits!.data as Float32Array).slice().buffer).toString('hex');
  return {
    bits,
    exits: trace.items.map(({ exits }) => exits),
    saved: trace.items.map((i) => i.multiplyAddsSkipped),
  };
}

test('chained exits decide alike and answer with the same bits on every instruction set and in every batch', async () => {
  const batch = await NETWORK.images();
  // The median confidence at the first exit.
  const all = await withSession(NETWORK.model, { policy: await policyOf(2) }, (session) =>
    decisions(session, batch),
  );
  const confidences = all.exits.map(([first]) => first!.score).sort((a, b) => a - b);
  expect(all.exits.every((exits) => exits.length === PLACES.length)).toBe(true);
  const policy = await policyOf(confidences[Math.floor(confidences.length / 2)]!);

  const expected = await withSession(NETWORK.model, { policy, isa: 'scalar', threads: 1 }, (session) =>
    decisions(session, batch),
  );
  const left = expected.exits.map((exits) => exits.findIndex(({ taken }) => taken));
  expect(new Set(left).size).toBeGreaterThan(1);
  for (const isa of await availableIsas(NETWORK.model)) {
    for (const threads of [1, 2]) {
      const got = await withSession(NETWORK.model, { policy, isa, threads }, (session) =>
        decisions(session, batch),
      );
      expect({ isa, threads, ...got }).toEqual({ isa, threads, ...expected });
    }
  }
});

test('the audit log of such runs holds every exit that an item came to', async () => {
  const batch = await NETWORK.images();
  const path = join(folderOf({}), 'trace.ndjson');
  const policy = await policyOf(0.5);
  const observers = [auditLog({ path })];
  const { exits, saved } = await withSession(NETWORK.model, { policy, observers }, (session) =>
    decisions(session, batch),
  );
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries.map(({ record }) => record.exits.map(([after]) => after))).toEqual(
    exits.map((own) => own.map(({ after }) => after)),
  );
  expect(entries.map(({ record }) => record.multiplyAddsSkipped)).toEqual(saved);
});
