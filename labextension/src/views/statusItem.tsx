/** The status bar: experiment, progress, time left, active runs, and a mark when one failed. */
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import type { Sidebar } from '../sidebar';
import { duration, percent } from '../words';

export class StatusItem extends ReactWidget {
  private _shown = '';

  constructor(
    private readonly model: Sidebar,
    private readonly onClick: () => void
  ) {
    super();
    this.addClass('rfl-status');
    this.addClass('jp-mod-highlighted');
    model.changed.connect(() => {
      const experiment = model.subject?.experiment;
      const now = experiment === undefined ? '' : JSON.stringify({ ...experiment, runs: [], sources: null });
      if (now !== this._shown) {
        this._shown = now;
        this.update();
      }
    });
  }

  protected override render(): React.ReactElement | null {
    const experiment = this.model.subject?.experiment;
    if (experiment === undefined) {
      return null;
    }
    const { name, progress, leftSeconds, active, total, failed, words } = experiment;
    const left = leftSeconds === null ? '' : ` · ${duration(leftSeconds)} left`;
    return (
      <button className="rfl-status-button" title={`${name}: ${words}`} onClick={this.onClick}>
        {`${name} ${percent(progress)}${left} · ${String(active)}/${String(total)} active`}
        {failed > 0 && <span className="rfl-failed">{` ▲ ${String(failed)}`}</span>}
      </button>
    );
  }
}
