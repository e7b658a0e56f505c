/** A saved panel: curves with hover and a table that sorts, drawn from data alone, with no kernel and no trust. */
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import '../../style/saved.css';
import { colour } from '../palette';
import { sortedRuns, type SavedCurve, type SavedPanel, type SavedRun } from '../savedPanel';
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
  // Which metrics have a chart: as it was arranged, and then as the reader chooses.
  const [charts, setCharts] = React.useState<readonly number[]>(panel.charts.length > 0 ? panel.charts : [0]);
  const [folded, setFolded] = React.useState<readonly number[]>([]);
  const [sort, setSort] = React.useState<readonly [number, boolean]>([0, false]);
  const [hover, setHover] = React.useState<Hover | null>(null);
  const [column, descending] = sort;
  const best = panel.runs.filter((run) => run.best).map((run) => run.id);
  const sorted = sortedRuns(panel, column, descending);
  const titles = new Map(panel.groups.map((group) => [group.means[0]?.run ?? -1, group.title]));
  return (
    <>
      <p>
        <b>{panel.experiment}</b> {panel.summary}
      </p>
      <div className="rfl-charts">
        {charts.map((metric, place) => {
          const shown = panel.curves[metric];
          const drawn = panel.groups.length > 0 ? means(panel, metric) : (shown?.runs ?? []);
          return (
            shown !== undefined &&
            drawn.length > 0 && (
              <div key={place}>
                {panel.curves.length > 1 && (
                  <label>
                    metric{' '}
                    <select
                      value={metric}
                      onChange={(event) => {
                        const chosen = Number(event.target.value);
                        setCharts(charts.map((one, at) => (at === place ? chosen : one)));
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
                <Chart metric={shown.metric} curves={drawn} onHover={setHover} />
              </div>
            )
          );
        })}
      </div>
      {panel.curves.length > 0 && (
        <HoverLine
          hover={hover}
          nameOf={(run) => (panel.groups.length > 0 ? (titles.get(run) ?? '') : `run ${String(run)}`)}
        />
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
            {panel.groups.length === 0
              ? sorted.map((run, place) => <Row key={place} run={run} isBest={best.includes(run.id)} />)
              : panel.groups.map((group, place) => (
                  <React.Fragment key={place}>
                    <tr className="rfl-group">
                      {group.cells.map((cell, index) => (
                        <td key={index}>
                          {index > 0 && cell}
                          {index === 0 && (
                            <button
                              aria-expanded={!folded.includes(place)}
                              onClick={() => {
                                setFolded(
                                  folded.includes(place)
                                    ? folded.filter((one) => one !== place)
                                    : [...folded, place]
                                );
                              }}
                            >
                              {folded.includes(place) ? '▸ ' : '▾ '}
                              {group.title}
                            </button>
                          )}
                        </td>
                      ))}
                    </tr>
                    {!folded.includes(place) &&
                      sorted
                        .filter((run) => group.runs.includes(run.id))
                        .map((run, at) => <Row key={at} run={run} isBest={best.includes(run.id)} />)}
                  </React.Fragment>
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

/** The mean curves of the groups for one metric. */
function means(panel: SavedPanel, metric: number): readonly SavedCurve[] {
  return panel.groups
    .flatMap((group) => group.means[metric] ?? [])
    .filter((curve) => curve.samples.length > 0);
}

function Row({ run, isBest }: { run: SavedRun; isBest: boolean }): React.ReactElement {
  return (
    <tr data-state={run.state}>
      {run.cells.map((cell, index) => (
        <td key={index}>
          {index === 0 && <span className="rfl-dot" style={{ background: colour(run.id) }} />}
          {cell}
          {index === 0 && isBest ? ' ★' : ''}
        </td>
      ))}
    </tr>
  );
}

/** What lies below the pointer. The line keeps its place while nothing does, so that the table below stays where it is. */
interface HoverProps {
  readonly hover: Hover | null;
  readonly nameOf: (run: number) => string;
}

function HoverLine({ hover, nameOf }: HoverProps): React.ReactElement {
  return (
    <p className="rfl-hover" role="status">
      {hover !== null && `sample ${number(hover.samples)}: `}
      {hover?.runs.map(({ run, value }) => (
        <span key={run}>
          <span className="rfl-dot" style={{ background: colour(run) }} />
          {`${nameOf(run)} ${number(value)}  `}
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
