/** `renderAudit` from code, with the pictures of what was recorded. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { auditLog } from 'lib/audit/log.js';
import { renderAudit } from 'lib/audit/render.js';
import { ImageClassifier } from 'lib/classify/image-classifier.js';
import { listImagesBelow } from 'lib/data/files.js';
import { DIST, describeBuilt, ROOT } from '../../helpers/dist.js';
import { folderOf, removeFolders } from '../../helpers/files.js';

const MODEL = join(ROOT, 'test/models/cifar10-resnet32-gates');
const IMAGES = join(ROOT, 'examples/images');
const path = join(folderOf({}), 'trace.ndjson');
afterAll(removeFolders);

beforeAll(async () => {
  const classifier = await ImageClassifier.from(MODEL, { observers: [auditLog({ path })] });
  await classifier.classify((await listImagesBelow(IMAGES)).slice(0, 5));
  await classifier.release();
});

// The charts' library has ES modules only, which Node runs and Jest does not.
describeBuilt('the report of an audit log', () => {
  const script = `
    import { renderAudit } from ${JSON.stringify(pathToFileURL(join(DIST, 'index.mjs')).href)};
    const options = JSON.parse(process.argv[1]);
    process.stdout.write(await renderAudit(${JSON.stringify(path)}, options));`;
  function render(options: object): string {
    const args = ['--input-type=module', '-e', script, JSON.stringify(options)];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    return stdout;
  }

  test('has the pictures of the items where the images are given', () => {
    const pictures = (html: string) => html.match(/<img /g)?.length ?? 0;
    expect(pictures(render({ images: IMAGES }))).toBeGreaterThanOrEqual(5);
    expect(pictures(render({}))).toBe(0);
  });
});

test('what can not be rendered is refused', async () => {
  const entries = [] as const;
  await expect(
    renderAudit({ entries, problems: [], energy: null, hadEarlier: false, signed: null }),
  ).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: 'audit log: it holds no item yet',
  });
  await expect(renderAudit(join(folderOf({}), 'none'))).rejects.toMatchObject({ code: 'INVALID_DATA' });
  await expect(renderAudit(path, { image: IMAGES } as object)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining("did you mean 'images'?"),
  });
});

test('an abort while images are searched ends it', async () => {
  const controller = new AbortController();
  const onProgress = () => controller.abort();
  const { signal } = controller;
  await expect(renderAudit(path, { images: IMAGES, onProgress, signal })).rejects.toMatchObject({
    name: 'AbortError',
    message: 'report: it was aborted',
  });
});
