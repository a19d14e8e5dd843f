// Evaluates the tests' networks, which were trained on these JPEG files, on all CIFAR-10 test images and compares the accuracy with
// PyTorch's.
// node scripts/ci/accuracy.mjs cifar10-test.tar.gz
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A tenth of a percentage point. */
const TOLERANCE = 0.001;

const [archive] = process.argv.slice(2);
if (!existsSync(archive)) {
  console.log(`${archive} is not there; accuracy is not measured`);
  process.exit(0);
}

function evaluate(model, data) {
  const args = ['dist/cli/main.js', 'eval', model, '--data', data, '--json'];
  return JSON.parse(
    execFileSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }),
  );
}

let passed = 0;
let failed = 0;
function check(name, got, expected) {
  const agrees = Math.abs(got - expected) <= TOLERANCE;
  if (agrees) passed++;
  else failed++;
  console.log(`${agrees ? 'ok  ' : 'FAIL'} ${name}: ${got}, PyTorch ${expected}`);
}

const data = mkdtempSync(join(tmpdir(), 'cifar10-'));
try {
  execFileSync('tar', ['-xzf', archive, '-C', data]);
  for (const name of readdirSync('test/models').map((folder) => join('test/models', folder))) {
    const { accuracyOnTest } = JSON.parse(readFileSync(join(name, 'reference.json'), 'utf8'));
    const report = evaluate(name, join(data, 'cifar10/test'));
    console.log(`${name}: ${JSON.stringify(report)}`);
    check(`${name}, every block run`, report.full.accuracy, accuracyOnTest.full);
    if (accuracyOnTest.gated) check(`${name}, gates asked`, report.skip.accuracy, accuracyOnTest.gated);
  }
} finally {
  rmSync(data, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
