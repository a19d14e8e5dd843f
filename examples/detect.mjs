// Finds objects in images, or gives their pixels classes.   node detect.mjs detect|segment MODEL IMAGE...
import { writeFile } from 'node:fs/promises';
import { ObjectDetector, Segmenter } from 'residual-skip';

const [task, model, ...images] = process.argv.slice(2);

if (task === 'detect') {
  const detector = await ObjectDetector.from(model);
  for (const image of images) {
    for (const { label, score, box } of await detector.detect(image, { threshold: 0.4 })) {
      const { x, y, width, height } = box;
      console.log(
        `${image}\t${label}\t${score.toFixed(2)}\t${[x, y, width, height].map(Math.round).join(' ')}`,
      );
    }
  }
  await detector.release();
} else {
  const segmenter = await Segmenter.from(model);
  for (const image of images) {
    const found = await segmenter.segment(image);
    for (const { label, share } of found.classes)
      console.log(`${image}\t${label}\t${(100 * share).toFixed(1)} %`);
    await writeFile(`${image}.mask.png`, await found.toPng());
  }
  await segmenter.release();
}
