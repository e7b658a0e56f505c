/** Draws saved curves with uPlot; a module of its own, so that nothing of it is loaded before a chart is seen. */
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { colour, dash } from '../palette';
import type { SavedCurve } from '../savedPanel';
import { number } from '../words';

/** What lies below the pointer. */
export interface Hover {
  readonly samples: number;
  readonly runs: readonly { readonly run: number; readonly value: number }[];
}

const HEIGHT = 260;
const NEAREST = 8;

/**
 * Draw curves into a node, as wide as it is.
 *
 * @returns How to take them away.
 */
export function drawCurves(
  node: HTMLElement,
  metric: string,
  curves: readonly SavedCurve[],
  onHover: (hover: Hover | null) => void
): () => void {
  const data = uPlot.join(curves.map((curve) => [[...curve.samples], [...curve.values]]));
  let plot: uPlot | null = null;
  let theme = '';
  const draw = (width: number): void => {
    plot?.destroy();
    const style = getComputedStyle(node);
    const ink = style.getPropertyValue('--jp-ui-font-color2') || '#777';
    const grid = { stroke: style.getPropertyValue('--jp-border-color2') || '#ddd', width: 1 };
    const axis = { stroke: ink, grid, ticks: grid };
    const options: uPlot.Options = {
      width,
      height: HEIGHT,
      legend: { show: false },
      scales: { x: { time: false } },
      axes: [
        { ...axis, label: 'samples', labelSize: 20 },
        { ...axis, label: metric.slice(0, 60), size: 64, values: (_plot, ticks) => ticks.map(number) }
      ],
      series: [
        {},
        ...curves.map((curve) => ({
          label: `run ${String(curve.run)}`,
          stroke: colour(curve.run),
          dash: [...dash(curve.run)],
          width: 1.7,
          spanGaps: true,
          points: { show: curve.samples.length === 1 }
        }))
      ],
      hooks: {
        setCursor: [
          (shown) => {
            onHover(below(shown, curves));
          }
        ]
      }
    };
    plot = new uPlot(options, data, node);
  };
  const look = (): void => {
    const width = Math.floor(node.clientWidth);
    const now = document.body.dataset.jpThemeName ?? '';
    if (width > 0 && (plot === null || plot.width !== width || theme !== now)) {
      theme = now;
      draw(width);
    }
  };
  const sizes = new ResizeObserver(look);
  sizes.observe(node);
  const themes = new MutationObserver(look);
  themes.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-name'] });
  return () => {
    sizes.disconnect();
    themes.disconnect();
    plot?.destroy();
  };
}

function below(plot: uPlot, curves: readonly SavedCurve[]): Hover | null {
  const { left, top } = plot.cursor;
  if (left === undefined || left < 0 || top === undefined) {
    return null;
  }
  const samples = plot.posToVal(left, 'x');
  const height = plot.posToVal(top, 'y');
  const runs = curves
    .map((curve) => ({ run: curve.run, value: at(curve, samples) }))
    .filter((one): one is { run: number; value: number } => one.value !== null)
    .sort((one, other) => Math.abs(one.value - height) - Math.abs(other.value - height))
    .slice(0, NEAREST);
  return { samples: Math.round(samples), runs };
}

/** A curve's value at a place, between its points as the line goes; null beyond its ends. */
function at({ samples, values }: SavedCurve, x: number): number | null {
  const after = samples.findIndex((one) => one >= x);
  const [x1, y1] = [samples[after], values[after]];
  if (x1 === undefined || y1 === undefined) {
    return null;
  }
  const [x0, y0] = [samples[after - 1], values[after - 1]];
  if (x0 === undefined || y0 === undefined || x1 === x0) {
    return x1 === x ? y1 : null;
  }
  return y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
}
