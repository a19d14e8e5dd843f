// Draws docs/skip-patterns.svg: the blocks that the gated network runs and skips for some example images.
// Usage, after `npm run compile`: node scripts/draw-skip-patterns.mjs
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';

const MODEL = 'models/fashion-mnist-resnet26-exits';
const IMAGES = [
  'bag-0000',
  'coat-0000',
  'coat-0001',
  'dress-0001',
  'pullover-0001',
  'shirt-0000',
  'shirt-0001',
  'sneaker-0000',
];
const OUTPUT = 'docs/skip-patterns.svg';

const command = (...args) =>
  JSON.parse(execFileSync(process.execPath, ['dist/cli/main.js', ...args, '--json'], { encoding: 'utf8' }));
const { blocks } = command('inspect', MODEL);
const images = IMAGES.map((name) => `examples/garments/${name}.png`);
const results = command('run', MODEL, ...images);

const ROW = 44;
const TOP = 38;
const CELL = { width: 26, height: 22, gap: 4, stageGap: 14 };
const LEFT = 190;
const FILLS = { '#': '#5b7db1', 1: '#2f9e66', '.': 'none' };

const xs = [];
let x = LEFT;
for (const { index, shortcut } of blocks) {
  if (index > 0) x += CELL.width + CELL.gap + (shortcut === 'identity' ? 0 : CELL.stageGap);
  xs.push(x);
}
const width = x + CELL.width + 130;
const height = TOP + ROW * results.length + 40;

const cell = (sign, left, top) =>
  `<rect x="${left}" y="${top}" width="${CELL.width}" height="${CELL.height}" rx="4" fill="${FILLS[sign]}"` +
  `${sign === '.' ? ' stroke="#b9bec7" stroke-dasharray="3 3"' : ''}/>`;
const text = (left, top, content, extra = '') => `<text x="${left}" y="${top}" ${extra}>${content}</text>`;

const rows = results.map(({ input, top: [best], blocks: { skipped, total, pattern } }, i) => {
  const y = TOP + i * ROW;
  const photo = readFileSync(input).toString('base64');
  return [
    `<image x="16" y="${y}" width="36" height="36" style="image-rendering:pixelated" href="data:image/png;base64,${photo}"><title>${basename(input)}</title></image>`,
    text(64, y + 23, `${best.label} ${(100 * best.probability).toFixed(0)} %`),
    ...xs.map((left, b) => cell(pattern[b], left, y + 7)),
    text(x + CELL.width + 14, y + 23, `${skipped} of ${total} skipped`, 'fill="#5c6370"'),
  ].join('\n');
});

const legendY = TOP + ROW * results.length + 4;
const legend = [
  ['#', 'ran'],
  ['1', 'ran by its gate'],
  ['.', 'skipped'],
].map(
  ([sign, label], i) =>
    cell(sign, LEFT + i * 150, legendY) + text(LEFT + i * 150 + CELL.width + 8, legendY + 16, label),
);

mkdirSync(dirname(OUTPUT), { recursive: true });
writeFileSync(
  OUTPUT,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13" fill="#24292f">
<title>Blocks of ${basename(MODEL)} that run and that are skipped, image by image</title>
<rect width="${width}" height="${height}" rx="8" fill="#fff"/>
${text(LEFT, 24, `${blocks.length} residual blocks, input on the left`, 'fill="#5c6370"')}
${rows.join('\n')}
${legend.join('\n')}
</svg>
`,
);
