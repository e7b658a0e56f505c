/** The compact list of runs: a row a run, with its buttons. */
import {
  deleteIcon,
  downloadIcon,
  duplicateIcon,
  fastForwardIcon,
  refreshIcon,
  runIcon,
  stopIcon
} from '@jupyterlab/ui-components';
import * as React from 'react';
import { inPlace, type Run } from '../experiments';
import { colour } from '../palette';
import { ICONS, number, percent } from '../words';
import { Sparkline, scaleOf } from './sparkline';

/** The buttons of a run, in their order. */
const RUN_BUTTONS = [
  { verb: 'stop', icon: stopIcon, words: 'Stop' },
  { verb: 'resume', icon: runIcon, words: 'Resume' },
  { verb: 'clone', icon: duplicateIcon, words: 'Clone' },
  { verb: 'warm start', icon: fastForwardIcon, words: 'Warm-start from' },
  { verb: 'retry', icon: refreshIcon, words: 'Retry with half the batch' },
  { verb: 'export', icon: downloadIcon, words: 'Export' },
  { verb: 'delete', icon: deleteIcon, words: 'Delete' }
] as const;

/** What the list asks for. */
export interface RunActions {
  toggle(run: number): void;
  act(verb: string, run: number): void;
}

interface ButtonsProps {
  readonly run: number;
  /** The allowed verbs, as one text, so that it is the same while nothing changed. */
  readonly can: string;
  readonly actions: RunActions;
}

const RunButtons = React.memo(function RunButtons({ run, can, actions }: ButtonsProps): React.ReactElement {
  const allowed = can.split(',');
  return (
    <span className="rfl-buttons">
      {RUN_BUTTONS.filter(({ verb }) => allowed.includes(verb)).map(({ verb, icon, words }) => (
        <button
          key={verb}
          className="rfl-button"
          data-verb={verb}
          title={`${words} run ${String(run)}`}
          aria-label={`${words} run ${String(run)}`}
          onClick={(event) => {
            event.stopPropagation();
            actions.act(verb, run);
          }}
        >
          <icon.react tag="span" elementSize="small" />
        </button>
      ))}
    </span>
  );
});

interface RowProps {
  readonly run: Run;
  readonly low: number;
  readonly high: number;
  readonly colour: string;
  readonly metric: string | null;
  readonly isSelected: boolean;
  readonly actions: RunActions;
}

const Row = React.memo(function Row(props: RowProps): React.ReactElement {
  const { run, low, high, metric, isSelected, actions } = props;
  const name = `run ${String(run.id)}`;
  const title = [
    `${name}: ${run.word}, ${percent(run.progress)}`,
    metric === null ? '' : `${metric} ${number(run.value)}`,
    run.parent === null ? '' : `cloned from run ${String(run.parent)}${run.warm ? ', warm' : ''}`,
    run.error ?? ''
  ];
  return (
    <li
      className="rfl-run"
      data-run={run.id}
      data-state={run.state}
      role="option"
      aria-selected={isSelected}
      tabIndex={0}
      title={title.filter((one) => one !== '').join('\n')}
      onClick={() => {
        actions.toggle(run.id);
      }}
      onKeyDown={(event) => {
        if (event.target === event.currentTarget && (event.key === 'Enter' || event.key === ' ')) {
          event.preventDefault();
          actions.toggle(run.id);
        }
      }}
    >
      <div className="rfl-line">
        <span className="rfl-dot" style={{ background: props.colour }} />
        <b>{name}</b>
        <span className="rfl-sign">{ICONS[run.state] ?? '○'}</span>
        <span className="rfl-space" />
        <span className="rfl-value">
          {run.best && <span aria-label="best">★ </span>}
          {number(run.value)}
        </span>
        <Sparkline values={run.spark} low={low} high={high} colour={props.colour} />
      </div>
      <div className="rfl-line">
        <span className="rfl-knobs">
          <span className="rfl-state">{run.word}</span> {run.error ?? run.knobs.join(' · ')}
        </span>
        <RunButtons run={run.id} can={run.can.join(',')} actions={actions} />
      </div>
      <div className="rfl-bar" aria-hidden="true">
        <div style={{ width: `${String(100 * run.progress)}%` }} />
      </div>
    </li>
  );
});

interface ListProps {
  readonly runs: readonly Run[];
  readonly metric: string | null;
  readonly selected: readonly number[];
  readonly actions: RunActions;
}

/** While the pointer is among the runs they keep their places, so that none slips away under a click. */
export function RunList({ runs, metric, selected, actions }: ListProps): React.ReactElement {
  const [isOver, setIsOver] = React.useState(false);
  const seen = React.useRef<readonly number[]>([]);
  const shown = isOver ? inPlace(runs, seen.current) : runs;
  seen.current = shown.map((run) => run.id);
  const { low, high } = scaleOf(runs.map((run) => run.spark));
  return (
    <ul
      className="rfl-runs"
      role="listbox"
      aria-multiselectable="true"
      aria-label="Runs"
      onPointerEnter={() => {
        setIsOver(true);
      }}
      onPointerLeave={() => {
        setIsOver(false);
      }}
    >
      {shown.map((run) => (
        <Row
          key={run.id}
          run={run}
          low={low}
          high={high}
          colour={colour(run.id)}
          metric={metric}
          isSelected={selected.includes(run.id)}
          actions={actions}
        />
      ))}
    </ul>
  );
}
