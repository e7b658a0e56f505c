/** The extension's plugins: the sidebar with what belongs to it, and the renderer of saved panels. */
import {
  ILabShell,
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry, Notification } from '@jupyterlab/apputils';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import type { Widget } from '@lumino/widgets';
import { version } from '../package.json';
import { actionsOf, addCommands, CATEGORY, Commands } from './commands';
import type { KernelState } from './experiments';
import { Kernels } from './kernels';
import { newsBetween } from './news';
import { Notebooks } from './notebooks';
import { choose } from './palette';
import { recordedIn } from './files';
import { PanelRenderer } from './renderer';
import { PANEL_MIME } from './savedPanel';
import { readSettings } from './settings';
import { Sidebar } from './sidebar';
import { BadgeView } from './views/badgeView';
import { SidebarWidget } from './views/sidebar';
import { StatusItem } from './views/statusItem';

const PLUGIN = 'rf-notebook:plugin';
/** Before ipywidgets' own renderer, which would take the output's other part. */
const RANK = -20;

const experiments: JupyterFrontEndPlugin<void> = {
  id: PLUGIN,
  description: 'Sidebar, status bar, commands and badge of rf_notebook.',
  autoStart: true,
  requires: [INotebookTracker, IDocumentManager],
  optional: [
    ICommandPalette,
    ILabShell,
    ILauncher,
    ILayoutRestorer,
    ISettingRegistry,
    IStatusBar,
    IToolbarWidgetRegistry
  ],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    documents: IDocumentManager,
    palette: ICommandPalette | null,
    labShell: ILabShell | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null,
    statusBar: IStatusBar | null,
    toolbars: IToolbarWidgetRegistry | null
  ) => {
    let settings = readSettings(null);
    const kernels = new Kernels(
      (model) => app.serviceManager.kernels.connectTo({ model, handleComms: true }),
      version,
      settings
    );
    const model = new Sidebar(kernels);
    const notebooks = new Notebooks(tracker, kernels, model);
    const widget = new SidebarWidget(model, actionsOf(app));
    app.shell.add(widget, 'left', { rank: 900 });
    restorer?.add(widget, widget.id);
    addCommands(
      { app, model, notebooks, tracker, documents, widget: () => widget, settings: () => settings },
      palette
    );
    launcher?.add({ command: `${Commands.create}-card`, category: 'Notebook', rank: 90 });
    launcher?.add({ command: `${Commands.create}-card`, category: CATEGORY, rank: 0 });
    statusBar?.registerStatusItem('rf-notebook:status', {
      item: new StatusItem(model, () => {
        void app.commands.execute(Commands.show);
      }),
      align: 'left',
      rank: 10
    });
    toolbars?.addFactory<NotebookPanel>(
      'Notebook',
      'rf-notebook-badge',
      (panel) => new BadgeView(notebooks.badge(panel))
    );

    const seen = new WeakMap<object, KernelState>();
    kernels.changed.connect(() => {
      for (const { link, state } of model.groups) {
        if (state !== null && seen.get(link) !== state) {
          const news = newsBetween(seen.get(link) ?? null, state);
          seen.set(link, state);
          if (settings.notifications) {
            for (const { kind, text } of news) {
              Notification.emit(text, kind === 'failed' ? 'error' : 'success', {
                autoClose: kind === 'failed' ? false : 8000
              });
            }
          }
        }
      }
    });

    let looked = '';
    const lookForFiles = async (): Promise<void> => {
      const { notebook } = model;
      const linked = kernels.link(notebook?.kernel ?? null) !== null;
      const now = `${String(widget.shown)} ${String(linked)} ${notebook?.path ?? ''}`;
      if (now === looked) {
        return;
      }
      looked = now;
      if (widget.shown && notebook !== null && !linked) {
        const files = await recordedIn(app.serviceManager.contents, notebook.path);
        if (looked === now) {
          model.setFiles(files); // of the notebook that is still in front
        }
      }
    };
    const look = (): void => {
      void lookForFiles();
    };
    model.changed.connect(look);
    labShell?.layoutModified.connect(look);

    void registry?.load(PLUGIN).then((found) => {
      const read = (): void => {
        settings = readSettings(found);
        choose(settings.colours);
        kernels.greet(settings);
      };
      found.changed.connect(read);
      read();
    });
  }
};

const renderer: JupyterFrontEndPlugin<void> = {
  id: 'rf-notebook:renderer',
  description: 'Panels of rf_notebook in notebooks: live while the kernel has them, saved figures otherwise.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [INotebookTracker],
  activate: (_app: JupyterFrontEnd, rendermime: IRenderMimeRegistry, tracker: INotebookTracker | null) => {
    const ownerOf = (widget: Widget): NotebookPanel | null =>
      tracker?.find((panel) => panel.node.contains(widget.node)) ?? null;
    rendermime.addFactory(
      { safe: true, mimeTypes: [PANEL_MIME], createRenderer: () => new PanelRenderer(ownerOf) },
      RANK
    );
  }
};

export default [experiments, renderer];
