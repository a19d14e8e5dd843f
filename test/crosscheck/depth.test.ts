/** The module of docs/search.md, where PyTorch is installed: a network with it keeps its neighbours, and most items leave at an exit. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { Tensor } from 'lib/tensor/tensor.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { uniform } from '../helpers/random.js';
import { inLanguage, snippetsOf } from '../helpers/snippets.js';
import '../helpers/few-timed.js';

const PYTHON = '/usr/bin/python3';
const hasTorch = existsSync(PYTHON) && spawnSync(PYTHON, ['-c', 'import torch, onnx']).status === 0;
const [CHANNELS, SIDE] = [16, 8] as const;

/** Blocks that nobody trained, with the module behind the second of eight; the factor is above 0 for two items of five. */
const NETWORK = `
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))

class Network(nn.Module):
    def __init__(self, width=${CHANNELS}):
        super().__init__()
        self.first, self.rest = (nn.Sequential(*(Block(width) for _ in range(n))) for n in (2, 6))
        self.depth, self.late = Depth(width, 12), nn.Linear(width, 12)
    def forward(self, x):
        x = self.first(x)
        return self.depth(x, self.late(self.rest(x).mean((2, 3))))[0]

torch.manual_seed(1)
network = Network().eval()
x = torch.rand(500, ${CHANNELS}, 1, 1) * 2 - 1 + 0.2 * torch.rand(500, ${CHANNELS}, ${SIDE}, ${SIDE})
with torch.no_grad():
    z = network.depth.factor(network.first(x).mean((2, 3)))
    network.depth.factor.bias -= z.quantile(0.6)
    assert (network.depth(network.first(x), torch.zeros(500, 12))[1] == 0).float().mean() > 0.5
network.train()
vector, = network(x[:2]),
vector.sum().backward()
assert network.depth.factor.weight.grad.abs().sum() > 0
network.eval()
torch.onnx.export(network, x[:1], "model.onnx", input_names=["map"], output_names=["vector"], dynamic_axes={"map": {0: "n"}, "vector": {0: "n"}}, dynamo=False)
`;

afterAll(removeFolders);

(hasTorch ? test : test.skip)('a network that was made for depth', async () => {
  const folder = folderOf({});
  const [{ code } = { code: '' }] = snippetsOf('docs/search.md').filter(inLanguage('python'));
  const { status, stderr } = spawnSync(PYTHON, ['-c', `${code}\n${NETWORK}`], {
    cwd: folder,
    encoding: 'utf8',
  });
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  const random = uniform(1);
  const items = Array.from({ length: 2000 }, () => {
    const means = Array.from({ length: CHANNELS }, () => 2 * random() - 1);
    const data = new Float32Array(CHANNELS * SIDE * SIDE);
    for (let i = 0; i < data.length; i++) data[i] = means[Math.floor(i / SIDE ** 2)]! + 0.2 * random();
    return { map: new Tensor('float32', data, [1, CHANNELS, SIDE, SIDE]) };
  });
  const { policy } = await calibrate(join(folder, 'model.onnx'), items, {
    metric: 'recall@10',
    maxDisagreement: 0.01,
    threads: 1,
  });
  expect(policy.heads?.exits.length).toBeGreaterThan(0);
  expect(policy.promise!.pValue).toBeLessThan(0.05);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.3);
});
