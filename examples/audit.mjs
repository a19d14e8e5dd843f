// Records what a session does, watches over its answers, and replays the record.   node audit.mjs [LOG]
import { auditLog, ImageClassifier, readAudit, replayAudit, watch } from 'residual-skip';

const DEMO = 'node_modules/residual-skip/demo';
const [path = 'trace.ndjson'] = process.argv.slice(2);
const images = [3, 5, 7].map((digit) => `${DEMO}/digit-${digit}.png`);

// Every item also runs in full here. A service would do that with one in a hundred.
const monitor = watch({ shadow: 1, maxDisagreement: 0.01, onTrip: 'full' });
monitor.on('trip', ({ disagreement }) => console.error('skipping changes too many answers:', disagreement));
monitor.on('drift', (moved) => console.error('scores have moved:', moved));

const classifier = await ImageClassifier.from(DEMO, { observers: [auditLog({ path }), monitor] });
for (const image of images) await classifier.classify(image);
await monitor.settled(); // shadow runs let other runs go first
await classifier.release(); // writes what is left of the log

const { checks, disagreements, tripped } = monitor.stats().watch;
console.log(`${checks} answers checked, ${disagreements} differ, ${tripped ? 'tripped' : 'not tripped'}`);

const { entries, problems } = await readAudit(path);
console.log(`${entries.length} items recorded, ${problems.length} lines changed or damaged`);

/** The images again, as the log knows them: by the hash of their pixels. */
async function* inputs(again) {
  for (const image of images) yield { name: image, feeds: again.feeds(await again.prepare(image)) };
}

const again = await ImageClassifier.from(DEMO, { threads: 1 });
const { replayed, identical } = await replayAudit(entries, inputs(again), again.session);
console.log(`${identical} of ${replayed} replayed with the same bits`);
await again.release();
