// The live page: draws the snapshots that /events sends. Charts are uPlot's.
/** Ten minutes, as the server has them. */
const KEPT = 1200;
const views = new Map();
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A colour that the page's theme gives, as canvases need it. */
function resolved(name) {
  const probe = element('span');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color: value } = getComputedStyle(probe);
  probe.remove();
  return value;
}

/** Lines of the whole width of `parent`, which follow it. */
function chart(parent, title, series) {
  const holder = element('div', { className: 'chart' }, element('h3', { textContent: title }));
  parent.append(holder);
  const axis = {
    stroke: resolved('--dim'),
    grid: { stroke: resolved('--line'), width: 1 },
    ticks: { show: false },
  };
  const time = (_self, moments) =>
    moments.map((moment) => new Date(1000 * moment).toLocaleTimeString([], { hour12: false }));
  const plot = new uPlot(
    {
      width: 300,
      height: 160,
      cursor: { drag: { x: false, y: false } },
      legend: { show: series.length > 1, live: false },
      scales: { y: { range: (_self, _low, high) => [0, Math.max(high, 1e-6) * 1.05] } },
      axes: [
        { ...axis, values: time, space: 90 },
        { ...axis, size: 56 },
      ],
      series: [
        {},
        ...series.map(({ label, color: name }) => ({
          label,
          stroke: resolved(name),
          width: 2,
          points: { show: false },
        })),
      ],
    },
    [[], ...series.map(() => [])],
    holder,
  );
  new ResizeObserver(([{ contentRect }]) =>
    plot.setSize({ width: Math.floor(contentRect.width), height: 160 }),
  ).observe(holder);
  return plot;
}

/** One of the last answers: the image as the network saw it, its blocks, and what it was taken for. */
function answerRow({ answer, path, image }) {
  const blocks = element('span', { className: 'path', title: `${path} (# ran, . skipped)` });
  for (const block of path) blocks.append(element('i', { className: block === '#' ? 'ran' : 'skipped' }));
  const picture = element('canvas', { width: image?.width ?? 1, height: image?.height ?? 1 });
  if (image) drawImage(picture, image);
  return element('li', {}, picture, blocks, element('b', { textContent: answer }));
}

function drawImage(canvas, { width, height, channels, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = bytes[channels * i + (channels === 1 ? 0 : c)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0);
}

function viewOf({ name, version }) {
  const key = `${name} ${version}`;
  const known = views.get(key);
  if (known) return known;
  const facts = element('dl', { className: 'facts' });
  const charts = element('div', { className: 'charts' });
  const blocks = element('div', { className: 'blocks' });
  const recent = element('ul', { className: 'recent' });
  const skipping = element(
    'div',
    {},
    element('h3', { textContent: 'Skipped, by block, 0 to 100 %' }),
    blocks,
  );
  const paths = element(
    'div',
    {},
    element('h3', { textContent: 'Last images: blocks that ran, and the answer' }),
    recent,
  );
  const article = element(
    'article',
    {},
    element('h2', { textContent: `${name}, version ${version}` }),
    facts,
    charts,
  );
  article.dataset.model = name;
  byId('models').append(article);
  const view = {
    article,
    facts,
    blocks,
    recent,
    rate: chart(charts, 'Items per second', [{ label: 'items/s', color: '--accent' }]),
    latency: chart(charts, 'Latency, ms', [
      { label: 'p50', color: '--accent' },
      { label: 'p99', color: '--second' },
    ]),
    saved: chart(charts, 'Multiply-adds saved, %', [{ label: 'saved', color: '--good' }]),
    rows: [],
  };
  charts.append(skipping, paths);
  views.set(key, view);
  return view;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function addRow(view, time, { itemsPerSecond, latencyMs, saved }) {
  view.rows.push([
    time / 1000,
    itemsPerSecond,
    latencyMs?.p50 ?? null,
    latencyMs?.p99 ?? null,
    saved === null ? null : 100 * saved,
  ]);
  if (view.rows.length > KEPT) view.rows.shift();
}

function drawRows(view) {
  const column = (i) => view.rows.map((row) => row[i]);
  view.rate.setData([column(0), column(1)]);
  view.latency.setData([column(0), column(2), column(3)]);
  view.saved.setData([column(0), column(4)]);
}

/** What the server has kept replaces the charts. */
function drawHistory(moments) {
  for (const view of views.values()) view.rows = [];
  for (const { time, models } of moments) for (const model of models) addRow(viewOf(model), time, model);
  for (const view of views.values()) drawRows(view);
}

function drawModel(time, model) {
  const view = viewOf(model);
  const { latencyMs, saved, promise } = model;
  const facts = [
    ['items per second', model.itemsPerSecond.toFixed(0)],
    ['p99', latencyMs ? `${latencyMs.p99.toFixed(1)} ms` : '-'],
    ['setting', model.setting],
    ['promise', promise ? `at most ${percent(promise.limit)} of answers change` : 'none'],
    ['saved', saved === null ? '-' : percent(saved)],
    ['monitor', model.tripped ? 'tripped: full depth only' : 'quiet'],
  ];
  view.facts.replaceChildren(
    ...facts.map(([name, value]) =>
      element(
        'div',
        { className: name === 'monitor' && model.tripped ? 'tripped' : '' },
        element('dt', { textContent: name }),
        element('dd', { textContent: value }),
      ),
    ),
  );
  addRow(view, time, model);
  drawRows(view);
  if (model.blocks.length > 0) {
    view.blocks.replaceChildren(
      ...model.blocks.map(({ name, skipped }) => {
        const bar = element('i');
        bar.style.height = `${100 * skipped}%`;
        return element('span', { title: `${name}: ${percent(skipped)} skipped` }, bar);
      }),
    );
  }
  view.recent.replaceChildren(...model.recent.map(answerRow).reverse());
}

function draw({ time, queued, running, models, changes }) {
  byId('status').textContent = `${queued} waiting, ${running} running`;
  for (const model of models) drawModel(time, model);
  const present = new Set(models.map(({ name, version }) => `${name} ${version}`));
  for (const [key, { article }] of views) {
    if (present.has(key)) continue;
    article.remove();
    views.delete(key);
  }
  if (changes.length === 0) return;
  byId('changes').replaceChildren(
    ...[...changes].reverse().map(({ time: at, model, from, to, reason }) =>
      element(
        'li',
        {},
        element('time', {
          textContent: new Date(at).toLocaleTimeString([], { hour12: false }),
          dateTime: new Date(at).toISOString(),
        }),
        ` ${model}: ${from} to ${to} (${reason})`,
      ),
    ),
  );
}

let events;
/** The server sends pictures of the images only to pages whose users want them. */
function connect() {
  events?.close();
  events = new EventSource(byId('images').checked ? 'events?images=1' : 'events');
  events.onmessage = ({ data }) => draw(JSON.parse(data));
  events.addEventListener('history', ({ data }) => drawHistory(JSON.parse(data)));
  events.onerror = () => {
    byId('status').textContent = 'the server does not answer; trying again';
  };
}
byId('images').addEventListener('change', connect);
connect();
// Canvases take colours when they are made: a change of theme makes them again.
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const { article } of views.values()) article.remove();
  views.clear();
});
