/** The commands: each is in the palette, most have a button in the sidebar, some a shortcut (schema/plugin.json). */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, InputDialog, MainAreaWidget, showDialog, type ICommandPalette } from '@jupyterlab/apputils';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { isExperimentName } from './files';
import type { Notebooks } from './notebooks';
import type { Settings } from './settings';
import type { Sidebar } from './sidebar';
import type { Actions, SidebarWidget } from './views/sidebar';
import { curvesIcon } from './views/icon';
import { WidgetView } from './widgetView';

export const CATEGORY = 'RapidFire';

export const Commands = {
  show: 'rf-notebook:show',
  stop: 'rf-notebook:stop',
  resume: 'rf-notebook:resume',
  stopOrResume: 'rf-notebook:stop-or-resume',
  clone: 'rf-notebook:clone',
  warmStart: 'rf-notebook:warm-start',
  retry: 'rf-notebook:retry',
  delete: 'rf-notebook:delete',
  export: 'rf-notebook:export-run',
  pause: 'rf-notebook:pause-all',
  end: 'rf-notebook:end',
  panel: 'rf-notebook:open-panel',
  log: 'rf-notebook:open-log',
  exportNotebook: 'rf-notebook:export-experiment',
  replay: 'rf-notebook:replay',
  starter: 'rf-notebook:insert-starter',
  create: 'rf-notebook:new-notebook',
  reopen: 'rf-notebook:reopen',
  remove: 'rf-notebook:remove'
} as const;

/** The command behind each verb of a run. */
const BY_VERB: Readonly<Record<string, string>> = {
  stop: Commands.stop,
  resume: Commands.resume,
  clone: Commands.clone,
  'warm start': Commands.warmStart,
  retry: Commands.retry,
  delete: Commands.delete,
  export: Commands.export
};

/** What the commands act with. */
export interface Surroundings {
  readonly app: JupyterFrontEnd;
  readonly model: Sidebar;
  readonly widget: () => SidebarWidget;
  readonly notebooks: Notebooks;
  readonly tracker: INotebookTracker;
  readonly documents: IDocumentManager;
  readonly settings: () => Settings;
}

/** The sidebar's buttons, as commands. */
export function actionsOf(app: JupyterFrontEnd): Actions {
  const run = (id: string, args: ReadonlyPartialJSONObject = {}): void => {
    void app.commands.execute(id, args);
  };
  return {
    act: (verb, runs) => {
      run(BY_VERB[verb] ?? Commands.show, { runs: [...runs] });
    },
    pause: () => {
      run(Commands.pause);
    },
    end: () => {
      run(Commands.end);
    },
    panel: () => {
      run(Commands.panel);
    },
    log: () => {
      run(Commands.log);
    },
    exportNotebook: () => {
      run(Commands.exportNotebook);
    },
    replay: () => {
      run(Commands.replay);
    },
    starter: () => {
      run(Commands.starter);
    },
    reopen: (name) => {
      run(Commands.reopen, { name });
    },
    remove: (name) => {
      run(Commands.remove, { name });
    }
  };
}

/** Register the commands. */
export function addCommands(around: Surroundings, palette: ICommandPalette | null): void {
  const { app, model } = around;
  const has = (): boolean => model.subject !== null;
  const isOpen = (): boolean => model.subject?.experiment.isOpen === true;

  const add = (
    id: string,
    label: string | (() => string),
    execute: (args: ReadonlyPartialJSONObject) => Promise<unknown>,
    isEnabled: () => boolean = () => true
  ): void => {
    app.commands.addCommand(id, {
      label,
      icon: id === Commands.show || id === Commands.create ? curvesIcon : undefined,
      isEnabled: (args) => args.runs !== undefined || args.name !== undefined || isEnabled(),
      execute,
      describedBy: {
        args: { type: 'object', properties: { runs: { type: 'array', items: { type: 'integer' } } } }
      }
    });
    if (id !== Commands.reopen && id !== Commands.remove) {
      palette?.addItem({ command: id, category: CATEGORY });
    }
  };
  const onRuns =
    (verb: string, act: (runs: readonly number[]) => Promise<unknown>) =>
    async (args: ReadonlyPartialJSONObject): Promise<unknown> => {
      const runs = runsOf(args) ?? model.allowed(verb);
      if (runs.length > 0) {
        return act(runs);
      }
      model.refuse(`select runs that can ${verb} in the sidebar first.`);
      return show(around);
    };

  add(Commands.show, 'Show RapidFire Experiments', () => show(around));
  add(
    Commands.stop,
    'Stop Selected Runs',
    onRuns('stop', (runs) => model.operate('stop', runs)),
    has
  );
  add(
    Commands.resume,
    'Resume Selected Runs',
    onRuns('resume', (runs) => model.operate('resume', runs)),
    has
  );
  add(
    Commands.stopOrResume,
    'Stop or Resume Selected Runs',
    async (args) => {
      const runs = runsOf(args);
      const stopped = model.runs.filter(
        (run) => runs?.includes(run.id) === true && run.can.includes('resume')
      );
      const verb = (runs === null ? model.allowed('stop').length === 0 : stopped.length > 0)
        ? 'resume'
        : 'stop';
      return onRuns(verb, (found) => model.operate(verb, found))(args);
    },
    has
  );
  add(
    Commands.clone,
    'Clone Run…',
    onRuns('clone', (runs) => clone(around, runs, false)),
    has
  );
  add(
    Commands.warmStart,
    'Warm-Start Run…',
    onRuns('warm start', (runs) => clone(around, runs, true)),
    has
  );
  add(
    Commands.retry,
    'Retry with Half the Batch',
    onRuns('retry', (runs) => model.operate('retry', runs.slice(0, 1))),
    has
  );
  add(
    Commands.delete,
    'Delete Selected Runs…',
    onRuns('delete', (runs) => deleteRuns(model, runs)),
    has
  );
  add(
    Commands.export,
    "Export Run's Adapter…",
    onRuns('export', (runs) => exportRun(model, runs)),
    has
  );
  add(
    Commands.pause,
    () => (model.subject?.experiment.paused === true ? 'Resume All Runs' : 'Pause All Runs'),
    () => model.togglePause(),
    isOpen
  );
  add(Commands.end, 'End Experiment…', () => endExperiment(model), isOpen);
  add(Commands.panel, 'Open the Whole Panel Here', () => openPanel(around), has);
  add(Commands.log, "Open the Experiment's Log", () => openLog(around), has);
  add(Commands.exportNotebook, 'Export Experiment as a Notebook…', () => exportNotebook(model), has);
  add(Commands.replay, 'Replay Experiment…', () => replay(model), has);
  add(
    Commands.starter,
    'Insert a Starter Cell',
    () => insertStarter(around),
    () => around.tracker.currentWidget !== null
  );
  add(Commands.create, 'New RapidFire Notebook', (args) => createNotebook(around, args));
  add(Commands.remove, 'Remove a Recorded Experiment', (args) => removeExperiment(model, args));
  add(Commands.reopen, 'Reopen a Recorded Experiment', (args) => reopen(around, args));
  app.commands.addCommand(`${Commands.create}-card`, {
    label: 'RapidFire experiment',
    caption: 'A notebook with a first experiment in it',
    icon: curvesIcon,
    execute: (args) => app.commands.execute(Commands.create, args)
  });
  model.changed.connect(() => {
    app.commands.notifyCommandChanged(Commands.pause);
  });
}

function runsOf(args: ReadonlyPartialJSONObject): readonly number[] | null {
  return Array.isArray(args.runs) ? args.runs.filter((one): one is number => typeof one === 'number') : null;
}

async function show({ app, widget }: Surroundings): Promise<void> {
  app.shell.activateById(widget().id);
  return Promise.resolve();
}

async function deleteRuns(model: Sidebar, runs: readonly number[]): Promise<boolean> {
  const names = runs.map((run) => `run ${String(run)}`).join(', ');
  const answer = await showDialog({
    title: `Delete ${names}?`,
    body: 'Checkpoints and memory go; the figures stay in the record.',
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Delete' })]
  });
  return answer.button.accept && model.operate('delete', runs);
}

async function removeExperiment(model: Sidebar, args: ReadonlyPartialJSONObject): Promise<boolean> {
  if (typeof args.name !== 'string') {
    return false;
  }
  const words = model.recorded.find(({ name }) => name === args.name)?.words ?? '';
  const answer = await showDialog({
    title: `Remove ${args.name} from the disk?`,
    body: `Its record, checkpoints and figures go for good.${words === '' ? '' : ` (${words})`}`,
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Remove' })]
  });
  return answer.button.accept && model.remove(args.name);
}

async function endExperiment(model: Sidebar): Promise<boolean> {
  const answer = await showDialog({
    title: 'End the experiment now?',
    body: 'Everything trained is kept, and running its cell again continues it.',
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'End' })]
  });
  return answer.button.accept && model.end();
}

async function exportRun(model: Sidebar, runs: readonly number[]): Promise<boolean> {
  const [run] = runs;
  const name = model.subject?.experiment.name;
  if (run === undefined || name === undefined) {
    return false;
  }
  const answer = await InputDialog.getText({
    title: `Export the adapter of run ${String(run)}`,
    label: "A new folder, seen from the kernel's working directory",
    text: `${name}-run-${String(run)}`,
    okLabel: 'Export'
  });
  return answer.button.accept && answer.value !== null && model.exportRun(run, answer.value);
}

async function exportNotebook(model: Sidebar): Promise<boolean> {
  const answer = await InputDialog.getText({
    title: 'Export the experiment as a notebook',
    label: "A new file, seen from the kernel's working directory",
    text: `${model.subject?.experiment.name ?? 'experiment'}.ipynb`,
    okLabel: 'Export'
  });
  return answer.button.accept && answer.value !== null && model.exportNotebook(answer.value);
}

async function replay(model: Sidebar): Promise<boolean> {
  const answer = await showDialog({
    title: `Replay ${model.subject?.experiment.name ?? ''}?`,
    body:
      'All runs train again from their beginning, as an experiment of their own, and every recorded operation comes at ' +
      'its step. At the end a message tells whether all figures are equal.',
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Replay' })]
  });
  return answer.button.accept && model.replay();
}

async function clone(around: Surroundings, runs: readonly number[], warm: boolean): Promise<void> {
  const [run] = runs;
  const kernel = around.model.subject?.group.kernel;
  if (run === undefined || kernel === undefined) {
    return;
  }
  const id = await around.model.cloneModel(run, warm);
  if (id !== null) {
    await show(around);
    await hostInSidebar(around, kernel, id);
  }
}

async function openPanel(around: Surroundings): Promise<void> {
  const subject = around.model.subject;
  const id = await around.model.panelModel();
  if (subject === null || id === null) {
    return;
  }
  if (around.settings().panelOpens === 'sidebar') {
    await hostInSidebar(around, subject.group.kernel, id);
    return;
  }
  const { app, notebooks } = around;
  const notebook = notebooks.withKernel(subject.group.kernel);
  if (notebook === null) {
    return;
  }
  const content = new WidgetView();
  content.addClass('rfl-tab');
  const tab = new MainAreaWidget({ content });
  tab.title.label = subject.experiment.name;
  tab.title.icon = curvesIcon;
  tab.title.caption = `Panel of ${subject.experiment.name}`;
  app.shell.add(tab, 'main', { mode: 'split-right', ref: notebook.id });
  notebook.disposed.connect(() => {
    tab.dispose();
  });
  await fill(around, content, notebook.content.rendermime, id);
}

async function hostInSidebar(around: Surroundings, kernel: string, modelId: string): Promise<void> {
  const notebook = around.notebooks.withKernel(kernel);
  if (notebook === null) {
    around.model.refuse('open the notebook of this experiment first.');
    return;
  }
  const view = new WidgetView();
  view.addClass('rfl-hosted');
  view.addClass('rf-panel');
  around.widget().host(view);
  await fill(around, view, notebook.content.rendermime, modelId);
}

async function fill(
  around: Surroundings,
  view: WidgetView,
  rendermime: Parameters<WidgetView['showWidget']>[0],
  modelId: string
): Promise<void> {
  if (!(await view.showWidget(rendermime, modelId)) && !view.isDisposed) {
    (view.parent instanceof MainAreaWidget ? view.parent : view).dispose();
    around.model.refuse(
      'the panel is not to be had: the kernel does not have it, or ipywidgets is missing here.'
    );
  }
}

async function openLog({ app, model, tracker }: Surroundings): Promise<void> {
  const path = await model.logPath();
  const notebook = model.subject?.group.notebooks[0] ?? tracker.currentWidget?.context.path;
  if (path === null || notebook === undefined) {
    return;
  }
  const folder = notebook.split('/').slice(0, -1);
  if (path.startsWith('../') || path.startsWith('/')) {
    model.refuse(`the log lies outside of the kernel's working directory: ${path}`);
    return;
  }
  await app.commands.execute('docmanager:open', { path: [...folder, path].join('/'), factory: 'Editor' });
}

async function insertStarter(around: Surroundings): Promise<void> {
  const { STARTER_CELL } = await import('./starter');
  await insertCell(around, STARTER_CELL);
}

async function insertCell({ app, tracker }: Surroundings, source: string): Promise<void> {
  const panel = tracker.currentWidget;
  if (panel === null) {
    return;
  }
  app.shell.activateById(panel.id);
  const isEmpty = panel.content.activeCell?.model.sharedModel.getSource().trim() === '';
  if (!isEmpty || panel.content.activeCell?.model.type !== 'code') {
    await app.commands.execute('notebook:insert-cell-below');
  }
  panel.content.activeCell?.model.sharedModel.setSource(source);
}

async function createNotebook(
  { app, documents }: Surroundings,
  args: ReadonlyPartialJSONObject
): Promise<unknown> {
  const { STARTER_NOTEBOOK } = await import('./starter');
  const contents = app.serviceManager.contents;
  const folder = typeof args.cwd === 'string' ? args.cwd : '';
  const model = await contents.newUntitled({ path: folder, type: 'notebook' });
  const kernel = app.serviceManager.kernelspecs.specs?.kernelspecs.python3;
  const content = {
    nbformat: 4,
    nbformat_minor: 5,
    metadata:
      kernel === undefined
        ? {}
        : { kernelspec: { name: kernel.name, display_name: kernel.display_name, language: kernel.language } },
    cells: STARTER_NOTEBOOK.map(({ kind, source }, index) => ({
      cell_type: kind,
      id: `rapidfire-${String(index + 1)}`,
      metadata: {},
      source,
      ...(kind === 'code' ? { execution_count: null, outputs: [] } : {})
    }))
  };
  await contents.save(model.path, { type: 'notebook', format: 'json', content });
  return documents.openOrReveal(model.path);
}

async function reopen(around: Surroundings, args: ReadonlyPartialJSONObject): Promise<unknown> {
  const { app, model } = around;
  let name = typeof args.name === 'string' ? args.name : null;
  if (name === null) {
    const answer = await InputDialog.getItem({
      title: 'Reopen',
      items: model.recorded.map((one) => one.name)
    });
    name = answer.button.accept ? answer.value : null;
  }
  if (name === null || (await model.reopen(name))) {
    return undefined;
  }
  if (model.groups.some((group) => group.kernel === model.notebook?.kernel)) {
    return undefined; // the kernel said why not
  }
  if (!isExperimentName(name)) {
    model.refuse('that is not the name of an experiment.');
    return undefined;
  }
  await insertCell(around, `%load_ext rf_notebook\n%rapidfire open "${name}"`);
  return app.commands.execute('notebook:run-cell');
}
