/** What the sidebar shows: the current experiment with its runs, the other ones, those on disk. */
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import '../../style/sidebar.css';
import type { Experiment } from '../experiments';
import type { Sidebar, Subject } from '../sidebar';
import { duration, percent } from '../words';
import { RunList, type RunActions } from './runList';
import type { Actions } from './sidebar';

export class SidebarView extends ReactWidget {
  constructor(
    private readonly model: Sidebar,
    private readonly actions: Actions
  ) {
    super();
    this.addClass('rfl-view');
    model.changed.connect(() => {
      if (this.isVisible) {
        this.update();
      }
    });
  }

  protected override onBeforeShow(): void {
    this.update();
  }

  protected override render(): React.ReactElement {
    return <View model={this.model} actions={this.actions} />;
  }
}

function View({ model, actions }: { model: Sidebar; actions: Actions }): React.ReactElement {
  const { subject, problem, message } = model;
  return (
    <>
      {problem !== null && (
        <p className="rfl-message" data-kind="refused" role="alert">
          {problem}
        </p>
      )}
      {subject === null ? (
        <Nothing model={model} actions={actions} />
      ) : (
        <Current subject={subject} model={model} actions={actions} />
      )}
      <p className="rfl-message" data-kind={message?.kind ?? 'none'} role="status">
        {message?.text ?? ''}
      </p>
      <Others model={model} current={subject} />
      <OnDisk model={model} actions={actions} />
    </>
  );
}

function Nothing({ model, actions }: { model: Sidebar; actions: Actions }): React.ReactElement {
  if (model.notebook === null) {
    return <p className="rfl-hint">Open a notebook: its experiments appear here.</p>;
  }
  const shown = model.notebook.shows ?? [];
  if (shown.length > 0) {
    return (
      <p className="rfl-hint">
        This notebook shows what was saved of {shown.map((name) => `“${name}”`).join(', ')}; its kernel does
        not have it. Run the cell that starts it to continue, or to see the panel with all of its pages.
      </p>
    );
  }
  return (
    <div className="rfl-hint">
      <p>This notebook has no experiment yet.</p>
      <button className="rfl-wide" onClick={actions.starter}>
        Insert a starter cell
      </button>
    </div>
  );
}

function Current({
  subject,
  model,
  actions
}: {
  subject: Subject;
  model: Sidebar;
  actions: Actions;
}): React.ReactElement {
  const { experiment } = subject;
  const runActions = React.useMemo<RunActions>(
    () => ({
      toggle: (run) => {
        model.toggle(run);
      },
      act: (verb, run) => {
        actions.act(verb, [run]);
      }
    }),
    [model, actions]
  );
  return (
    <section aria-label={`Experiment ${experiment.name}`}>
      <Header experiment={experiment} />
      <div className="rfl-toolbar">
        <button disabled={!experiment.isOpen} onClick={actions.pause} data-action="pause">
          {experiment.paused ? '▶ Resume all' : '❚❚ Pause all'}
        </button>
        <button disabled={!experiment.isOpen} onClick={actions.end} data-action="end">
          End…
        </button>
        <button onClick={actions.panel} data-action="panel">
          Open panel here
        </button>
        <button onClick={actions.log} data-action="log">
          Log
        </button>
        <button onClick={actions.exportNotebook} data-action="export-experiment">
          Export…
        </button>
        <button onClick={actions.replay} data-action="replay">
          Replay…
        </button>
        <label>
          order{' '}
          <select
            value={model.order}
            onChange={(event) => {
              model.order = event.target.value === 'metric' ? 'metric' : 'run';
            }}
          >
            <option value="run">by run</option>
            <option value="metric">best first</option>
          </select>
        </label>
      </div>
      {experiment.heldUp !== null && (
        <p className="rfl-message" data-kind="refused" role="alert">
          {experiment.heldUp}
        </p>
      )}
      <RunList runs={model.runs} metric={experiment.metric} selected={model.selected} actions={runActions} />
    </section>
  );
}

function Header({ experiment }: { experiment: Experiment }): React.ReactElement {
  const { active, failed, total, leftSeconds, metric, progress } = experiment;
  return (
    <header className="rfl-header">
      <div className="rfl-line">
        <b className="rfl-name" title={experiment.key}>
          {experiment.name}
        </b>
        <span className="rfl-dim">{metric ?? ''}</span>
      </div>
      <div className="rfl-standing" data-standing={experiment.standing}>
        {experiment.words}
      </div>
      <div className="rfl-dim">
        {`${String(active)} of ${String(total)} runs active`}
        {failed > 0 && <span className="rfl-failed">{` · ▲ ${String(failed)} failed`}</span>}
        {leftSeconds !== null && ` · ${duration(leftSeconds)} left`}
      </div>
      <div
        className="rfl-bar rfl-whole"
        role="progressbar"
        aria-label="Progress of the experiment"
        aria-valuenow={Math.floor(100 * progress)}
        aria-valuemin={0}
        aria-valuemax={100}
        title={percent(progress)}
      >
        <div style={{ width: `${String(100 * progress)}%` }} />
      </div>
    </header>
  );
}

function Others({ model, current }: { model: Sidebar; current: Subject | null }): React.ReactElement | null {
  const others = model.groups.flatMap((group) =>
    (group.state?.experiments ?? [])
      .filter((one) => one.key !== current?.experiment.key || group.kernel !== current.group.kernel)
      .map((experiment) => ({ group, experiment }))
  );
  if (others.length === 0) {
    return null;
  }
  return (
    <section className="rfl-others" aria-label="Other experiments">
      <h3>Other experiments</h3>
      <ul>
        {others.map(({ group, experiment }) => (
          <li key={`${group.kernel} ${experiment.key}`}>
            <button
              className="rfl-other"
              title={group.notebooks.join(', ')}
              onClick={() => {
                model.choose(group.kernel, experiment.key);
              }}
            >
              <b>{experiment.name}</b> <span className="rfl-dim">{experiment.words}</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function OnDisk({ model, actions }: { model: Sidebar; actions: Actions }): React.ReactElement | null {
  if (model.recorded.length === 0) {
    return null;
  }
  return (
    <section className="rfl-others" aria-label="Experiments on disk">
      <h3>On disk</h3>
      <ul>
        {model.recorded.map(({ name, standing, runs, words }) => (
          <li key={name} className="rfl-recorded" data-name={name}>
            <span title={`${name}: ${words}`}>
              <b>{name}</b>{' '}
              <span className="rfl-dim">
                {standing}
                {runs !== null && `, ${String(runs)} runs`}
              </span>
              {words !== '' && <span className="rfl-dim rfl-about">{words}</span>}
            </span>
            <button
              aria-label={`Reopen ${name}`}
              onClick={() => {
                actions.reopen(name);
              }}
            >
              Reopen
            </button>
            {words !== '' && (
              <button
                aria-label={`Remove ${name} from the disk`}
                title="remove it from the disk"
                onClick={() => {
                  actions.remove(name);
                }}
              >
                ✕
              </button>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
