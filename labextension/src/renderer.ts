/** The renderer of our mime type: live while the kernel has the panel, the saved figures otherwise, a sentence for neither. */
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { IRenderMime } from '@jupyterlab/rendermime';
import type { Session } from '@jupyterlab/services';
import { Panel, Widget } from '@lumino/widgets';
import { PANEL_MIME, readPanel } from './savedPanel';
import { WidgetView } from './widgetView';

const LOOK_MS = 100;
const MOST_LOOKS = 100;

/** The notebook that holds a widget; null while it lies in none. */
export type OwnerOf = (widget: Widget) => NotebookPanel | null;

type KernelChange = Session.ISessionConnection.IKernelChangedArgs;

/** When these come, the kernel has lost the panel. */
const GONE = ['restarting', 'autorestarting', 'terminating', 'dead'];

export class PanelRenderer extends Panel implements IRenderMime.IRenderer {
  private _renders = 0;

  constructor(private readonly ownerOf: OwnerOf) {
    super();
    this.addClass('rfl-output');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const render = ++this._renders;
    for (const child of [...this.widgets]) {
      child.dispose();
    }
    const panel = readPanel(model.data[PANEL_MIME]);
    switch (panel.kind) {
      case 'saved':
        {
          const { SavedPanelView } = await import('./views/savedPanelView');
          if (this.isShowing(render)) {
            this.addWidget(new SavedPanelView(panel));
          }
        }
        break;
      case 'unreadable':
        this.addWidget(sentence(panel.sentence));
        break;
      case 'live':
        if (model.trusted) {
          void this.goLive(panel.modelId, render); // the notebook need not wait for it
        }
        break;
    }
  }

  /** Whether a render is still wanted: the output is there, and nothing was rendered after it. */
  private isShowing(render: number): boolean {
    return !this.isDisposed && render === this._renders;
  }

  private async goLive(modelId: string, render: number): Promise<void> {
    let owner = this.ownerOf(this);
    for (let looks = 0; owner === null && looks < MOST_LOOKS && this.isShowing(render); looks++) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      owner = this.ownerOf(this);
    }
    if (owner === null || !this.isShowing(render)) {
      return;
    }
    const view = new WidgetView();
    this.addWidget(view);
    const { sessionContext } = owner;
    // Without the live panel, the saved figures are seen that follow in the same cell.
    const leave = (): void => {
      view.dispose();
    };
    const look = (_context: unknown, status: string): void => {
      if (GONE.includes(status)) {
        leave();
      }
    };
    const compare = (_context: unknown, { oldValue, newValue }: KernelChange): void => {
      if (oldValue !== null && oldValue.id !== newValue?.id) {
        leave();
      }
    };
    sessionContext.statusChanged.connect(look);
    sessionContext.kernelChanged.connect(compare);
    view.disposed.connect(() => {
      sessionContext.statusChanged.disconnect(look);
      sessionContext.kernelChanged.disconnect(compare);
    });
    if (!(await view.showWidget(owner.content.rendermime, modelId))) {
      leave();
    }
  }
}

function sentence(text: string): Widget {
  const widget = new Widget({ node: document.createElement('p') });
  widget.addClass('rf-static');
  widget.addClass('rfl-unreadable');
  widget.node.textContent = text;
  return widget;
}
