/** The badge in a notebook's toolbar. */
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';
import type { Badge } from '../badge';

export class BadgeView extends ReactWidget {
  constructor(private readonly badge: Badge) {
    super();
    this.addClass('rfl-badge-item');
    badge.changed.connect(() => {
      this.update();
    });
  }

  protected override render(): React.ReactElement | null {
    const verdict = this.badge.verdict;
    if (verdict === null) {
      return null;
    }
    return (
      <span className="rfl-badge" data-kind={verdict.kind} title={verdict.words} role="status">
        {verdict.kind === 'reproducible' ? '✓ reproducible' : '△ changed since run'}
      </span>
    );
  }
}
