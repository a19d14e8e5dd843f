import type { TopLevelSpec } from 'vega-lite' with { 'resolution-mode': 'import' };
import { ResidualSkipError } from '../errors.js';

/** Colours that are legible on white and on black. */
export const INK = { ran: '#3b82f6', skipped: '#f59e0b', saved: '#10b981', guard: '#ef4444' } as const;

/** Text takes the page's colour, lines are a translucent grey: one SVG serves light and dark. */
const CONFIG = {
  background: 'transparent',
  font: 'system-ui, sans-serif',
  view: { stroke: 'rgba(128,128,128,0.35)' },
  axis: {
    labelColor: 'currentColor',
    titleColor: 'currentColor',
    gridColor: 'rgba(128,128,128,0.2)',
    domainColor: 'rgba(128,128,128,0.6)',
    tickColor: 'rgba(128,128,128,0.6)',
    titleFontWeight: 'normal' as const,
  },
  legend: {
    labelLimit: 0,
    labelColor: 'currentColor',
    titleColor: 'currentColor',
    titleFontWeight: 'normal' as const,
  },
  title: { color: 'currentColor', fontWeight: 'normal' as const, fontSize: 12 },
  header: { labelColor: 'currentColor', titleColor: 'currentColor' },
  mark: { color: INK.ran },
};

/**
 * Loads Vega, an optional peer. Call this before long work whose result is to be drawn.
 * @throws ResidualSkipError MISSING_DEPENDENCY without vega and vega-lite
 */
export async function loadVega() {
  // Bundlers accept that they aren't installed: webpack for the sake of `try`, esbuild for that of `catch`.
  const failed = (cause: unknown): never => {
    throw cause;
  };
  try {
    const [vega, lite] = await Promise.all([import('vega').catch(failed), import('vega-lite').catch(failed)]);
    return { vega, lite };
  } catch (cause) {
    throw new ResidualSkipError(
      'MISSING_DEPENDENCY',
      'report: its charts need the packages "vega" and "vega-lite", which can\'t be loaded here; install them with "npm install vega vega-lite"',
      { cause },
    );
  }
}

/**
 * A chart as an inline SVG element, rendered without a browser and without the network.
 * @throws ResidualSkipError MISSING_DEPENDENCY without vega and vega-lite
 */
export async function renderChart(spec: TopLevelSpec, label: string): Promise<string> {
  const { vega, lite } = await loadVega();
  const compiled = lite.compile({ ...spec, config: CONFIG } as TopLevelSpec).spec;
  const view = new vega.View(vega.parse(compiled), { renderer: 'none', logLevel: vega.Error });
  try {
    const svg = await view.toSVG();
    return svg.replace('<svg ', `<svg role="img" aria-label="${escapeHtml(label)}" `);
  } finally {
    view.finalize();
  }
}

export function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (c) => entities[c]!);
}
