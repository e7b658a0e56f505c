/** A saved panel: curves with hover and a table that sorts, drawn from data alone, with no kernel and no trust. */
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import '../../style/saved.css';
import { colour } from '../palette';
import { sortedRuns, type SavedPanel } from '../savedPanel';
import { number } from '../words';
import type { Hover } from './savedCurves';

export class SavedPanelView extends ReactWidget {
  constructor(private readonly panel: SavedPanel) {
    super();
    this.addClass('rf-static');
    this.addClass('rfl-saved');
  }

  protected override render(): React.ReactElement {
    return <View panel={this.panel} />;
  }
}

function View({ panel }: { panel: SavedPanel }): React.ReactElement {
  const [metric, setMetric] = React.useState(0);
  const [sort, setSort] = React.useState<readonly [number, boolean]>([0, false]);
  const [hover, setHover] = React.useState<Hover | null>(null);
  const [column, descending] = sort;
  const curves = panel.curves[metric];
  const best = panel.runs.filter((run) => run.best).map((run) => run.id);
  return (
    <>
      <p>
        <b>{panel.experiment}</b> {panel.summary}
      </p>
      {panel.curves.length > 1 && (
        <label>
          metric{' '}
          <select
            value={metric}
            onChange={(event) => {
              setMetric(Number(event.target.value));
            }}
          >
            {panel.curves.map((one, index) => (
              <option key={index} value={index}>
                {one.metric}
              </option>
            ))}
          </select>
        </label>
      )}
      {curves !== undefined && curves.runs.length > 0 && (
        <>
          <Chart metric={curves.metric} curves={curves.runs} onHover={setHover} />
          <HoverLine hover={hover} />
        </>
      )}
      <div className="rfl-scroller">
        <table>
          <thead>
            <tr>
              {panel.columns.map((title, index) => (
                <th
                  key={index}
                  scope="col"
                  aria-sort={index !== column ? 'none' : descending ? 'descending' : 'ascending'}
                >
                  <button
                    onClick={() => {
                      setSort([index, index === column && !descending]);
                    }}
                  >
                    {title}
                    {index === column ? (descending ? ' ↓' : ' ↑') : ''}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {sortedRuns(panel, column, descending).map((run, place) => (
              <tr key={place} data-state={run.state}>
                {run.cells.map((cell, index) => (
                  <td key={index}>
                    {index === 0 && <span className="rfl-dot" style={{ background: colour(run.id) }} />}
                    {cell}
                    {index === 0 && best.includes(run.id) ? ' ★' : ''}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p className="rfl-dim">
        Figures as they were saved. Run the notebook's cells again to open the live panel and go on where the
        record ends.
      </p>
    </>
  );
}

/** What lies below the pointer. The line keeps its place while nothing does, so that the table below stays where it is. */
function HoverLine({ hover }: { hover: Hover | null }): React.ReactElement {
  return (
    <p className="rfl-hover" role="status">
      {hover !== null && `sample ${number(hover.samples)}: `}
      {hover?.runs.map(({ run, value }) => (
        <span key={run}>
          <span className="rfl-dot" style={{ background: colour(run) }} />
          {`run ${String(run)} ${number(value)}  `}
        </span>
      ))}
    </p>
  );
}

type Curves = SavedPanel['curves'][number]['runs'];
interface ChartProps {
  readonly metric: string;
  readonly curves: Curves;
  readonly onHover: (hover: Hover | null) => void;
}

/** The chart's library is loaded when the first chart is seen. */
function Chart({ metric, curves, onHover }: ChartProps): React.ReactElement {
  const place = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    const node = place.current;
    if (node === null) {
      return undefined;
    }
    let gone = false;
    let remove = (): void => undefined;
    void import('./savedCurves').then(({ drawCurves }) => {
      if (!gone) {
        remove = drawCurves(node, metric, curves, onHover);
      }
    });
    return () => {
      gone = true;
      remove();
    };
  }, [metric, curves, onHover]);
  const label = `${metric} of ${String(curves.length)} runs over samples`;
  return <div className="rfl-chart" ref={place} role="img" aria-label={label} />;
}
