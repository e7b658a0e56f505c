/**
 * Shows a live widget of a notebook's kernel: in the sidebar, in a tab, or in an output.
 *
 * The widget manager is known to the notebook's own rendermime alone, and a renderer made before the manager came never
 * gets one, so the renderer is made again until the widget is there.
 */
import type { IRenderMimeRegistry, IRenderMime } from '@jupyterlab/rendermime';
import { Panel } from '@lumino/widgets';

const WIDGET_MIME = 'application/vnd.jupyter.widget-view+json';
const LOOK_MS = 150;
const TRY_MS = 2500;
const MOST_TRIES = 24;
const LATE_MS = 60_000;

export class WidgetView extends Panel {
  private _isLive = false;

  /** Whether the widget is shown. */
  get isLive(): boolean {
    return this._isLive;
  }

  /**
   * Show a widget.
   *
   * @param rendermime Of the notebook whose kernel has the widget.
   * @param modelId Of the widget.
   * @returns Whether it is there; a kernel that is new does not have it.
   */
  async showWidget(rendermime: IRenderMimeRegistry, modelId: string): Promise<boolean> {
    for (let tries = 0; tries < MOST_TRIES && !this.isDisposed; tries++) {
      const renderer = rendermime.createRenderer(WIDGET_MIME);
      renderer.node.style.display = 'none';
      this.addWidget(renderer);
      const found = await this.draw(renderer, rendermime, modelId);
      if (found === 'live') {
        renderer.node.style.display = '';
        this._isLive = true;
        return true;
      }
      if (found === 'gone') {
        renderer.dispose();
        return false;
      }
      void this.removeLater(renderer);
    }
    return false;
  }

  /** A view that is taken away while it is being made raises in the page, so one that comes late is removed when it came. */
  private async removeLater(renderer: IRenderMime.IRenderer): Promise<void> {
    for (let waited = 0; waited < LATE_MS && !this.isDisposed; waited += TRY_MS) {
      await new Promise((resolve) => setTimeout(resolve, TRY_MS));
      if (renderer.node.querySelector('.jupyter-widgets') !== null) {
        break;
      }
    }
    if (!this.isDisposed) {
      renderer.dispose();
    }
  }

  private async draw(
    renderer: IRenderMime.IRenderer,
    rendermime: IRenderMimeRegistry,
    modelId: string
  ): Promise<'live' | 'gone' | 'waiting'> {
    const view = { version_major: 2, version_minor: 0, model_id: modelId };
    void renderer.renderModel(rendermime.createModel({ data: { [WIDGET_MIME]: view }, trusted: true }));
    for (let waited = 0; waited < TRY_MS && !this.isDisposed; waited += LOOK_MS) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      if (renderer.node.querySelector('.jupyter-widgets') !== null) {
        return 'live';
      }
      if (renderer.node.textContent?.startsWith('Error displaying widget') === true) {
        return 'gone';
      }
    }
    return 'waiting';
  }
}
