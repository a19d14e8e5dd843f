/** The built package in somebody's own Jest, which refuses dynamic imports. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { DIST, describeBuilt, ROOT } from '../../helpers/dist.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { writeSeededModel } from '../../helpers/seeded-network.js';
import { textNetwork } from '../../helpers/text-network.js';

afterAll(removeFolders);

describeBuilt('in a test of Jest', () => {
  test('images and texts are classified', async () => {
    const images = folderOf({ 'red.png': await png(40, 30, [255, 0, 0]) });
    writeSeededModel(images);
    const program = `
      const { ImageClassifier, TextClassifier } = require(${JSON.stringify(join(DIST, 'index.js'))});
      test('an image', async () => {
        const classifier = await ImageClassifier.from(${JSON.stringify(images)}, { threads: 1 });
        const { probability } = await classifier.classify(${JSON.stringify(join(images, 'red.png'))});
        expect(probability).toBeGreaterThan(0);
        await classifier.release();
      });
      test('a text', async () => {
        const classifier = await TextClassifier.from(${JSON.stringify(textNetwork('classes'))}, { threads: 1 });
        expect(['bad', 'fair', 'good']).toContain((await classifier.classify('word1 word2')).label);
        await classifier.release();
      });
    `;
    const folder = folderOf({ 'package.json': '{}', 'use.test.js': program });
    const { NODE_OPTIONS: _, ...env } = process.env;
    const jest = join(ROOT, 'node_modules/jest/bin/jest.js');
    const { status, stderr } = spawnSync(process.execPath, [jest, '--rootDir', folder], {
      ...{ cwd: folder, env, encoding: 'utf8', timeout: 120_000 },
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('2 passed') });
  });
});
