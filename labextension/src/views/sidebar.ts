/** The sidebar's widget: the view, loaded when it is first opened, and room for the panel below it. */
import type { Message } from '@lumino/messaging';
import { Panel, type Widget } from '@lumino/widgets';
import type { Sidebar } from '../sidebar';
import { curvesIcon } from './icon';

/** What the sidebar's buttons do; each is one command. */
export interface Actions {
  act(verb: string, runs: readonly number[]): void;
  pause(): void;
  end(): void;
  panel(): void;
  log(): void;
  exportNotebook(): void;
  replay(): void;
  starter(): void;
  reopen(name: string): void;
  remove(name: string): void;
}

/** The widget in JupyterLab's left area. */
export class SidebarWidget extends Panel {
  private _hosted: Widget | null = null;
  private _isOpened = false;

  constructor(
    private readonly model: Sidebar,
    private readonly actions: Actions
  ) {
    super();
    this.id = 'rf-notebook-sidebar';
    this.addClass('rfl-sidebar');
    this.title.caption = 'RapidFire experiments';
    this.title.icon = curvesIcon;
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'RapidFire experiments');
  }

  /** Show a widget below the runs, in place of the one before. */
  host(widget: Widget): void {
    this._hosted?.dispose();
    this._hosted = widget;
    this.addWidget(widget);
    widget.disposed.connect(() => {
      if (this._hosted === widget) {
        this._hosted = null;
      }
    });
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    if (!this._isOpened) {
      this._isOpened = true;
      void import('./sidebarView').then(({ SidebarView }) => {
        this.insertWidget(0, new SidebarView(this.model, this.actions));
      });
    }
  }

  /** Whether a person sees it; nothing is drawn while not. */
  get shown(): boolean {
    return this.isVisible && this.model.notebook !== null;
  }
}
