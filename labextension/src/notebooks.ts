/** The open notebooks: their kernels are watched, their badges kept, their metadata written when they are saved. */
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { isCodeCellModel, type ICodeCellModel } from '@jupyterlab/cells';
import { JSONExt, type PartialJSONValue } from '@lumino/coreutils';
import { Debouncer } from '@lumino/polling';
import { Badge } from './badge';
import { SavedFigures } from './savedFigures';
import type { Kernels } from './kernels';
import { fromMetadata, METADATA, toMetadata, type Cell, type Digest } from './provenance';
import { experimentOf, identityOf, PANEL_MIME } from './savedPanel';
import type { Notebook, Sidebar } from './sidebar';

const LOOK_MS = 500;

export class Notebooks {
  private _digest: Digest | null = null;
  private readonly _badges = new Map<NotebookPanel, Badge>();

  constructor(
    private readonly tracker: INotebookTracker,
    private readonly kernels: Kernels,
    private readonly sidebar: Sidebar
  ) {
    tracker.widgetAdded.connect((_tracker, panel) => {
      this.add(panel);
    });
    tracker.currentChanged.connect(() => {
      this.tell();
    });
    kernels.changed.connect(() => {
      tracker.forEach((panel) => {
        this.watch(panel); // a notebook that shared another's watch goes on with its own
      });
    });
    tracker.forEach((panel) => {
      this.add(panel);
    });
    this.tell();
  }

  /** The badge of a notebook. */
  badge(panel: NotebookPanel): Badge {
    let badge = this._badges.get(panel);
    if (badge === undefined) {
      badge = new Badge({ cells: () => codeCells(panel), remembered: () => remembered(panel) });
      this._badges.set(panel, badge);
    }
    return badge;
  }

  /** The notebook whose kernel this is, the current one before others. */
  withKernel(kernel: string): NotebookPanel | null {
    const current = this.tracker.currentWidget;
    if (current !== null && kernelOf(current) === kernel) {
      return current;
    }
    return this.tracker.find((panel) => kernelOf(panel) === kernel) ?? null;
  }

  private add(panel: NotebookPanel): void {
    const { sessionContext, context } = panel;
    const begin = (): void => {
      this.watch(panel);
      this.tell();
    };
    sessionContext.kernelChanged.connect(begin);
    begin();

    const badge = this.badge(panel);
    const look = new Debouncer(async () => {
      if (panel.isDisposed || !context.isReady || !badge.isNeeded(this.living(panel))) {
        return;
      }
      const { sourceDigest } = await import('./digest');
      this._digest = sourceDigest;
      if (!panel.isDisposed) {
        badge.look(this.living(panel), sourceDigest);
      }
    }, LOOK_MS);
    const lookSoon = (): void => {
      void look.invoke();
    };
    let seen = '';
    const saved = new SavedFigures(panel, (name, given) =>
      this.kernels.link(kernelOf(panel))?.command(name, given)
    );
    const kernelSpoke = (): void => {
      const experiments = this.kernels.link(kernelOf(panel))?.state?.experiments ?? [];
      saved.bringUpToDate(experiments);
      if (experiments.length > 0 && context.isReady) {
        void import('./digest').then(({ sourceDigest }) => {
          saved.putBack(experiments, sourceDigest);
        });
      }
      const living = this.living(panel);
      const now = `${living?.identity ?? ''} ${living?.spec ?? ''} ${living?.sources?.launch ?? ''}`;
      if (now !== seen) {
        seen = now;
        lookSoon();
      }
    };
    this.kernels.changed.connect(kernelSpoke);
    void context.ready.then(() => {
      context.model.contentChanged.connect(lookSoon);
      lookSoon();
      kernelSpoke();
      this.tell();
    });
    context.saveState.connect((_context, state) => {
      if (state === 'started' && this._digest !== null) {
        badge.look(this.living(panel), this._digest);
        write(panel, badge);
      }
    });
    panel.disposed.connect(() => {
      this.kernels.changed.disconnect(kernelSpoke);
      look.dispose();
      this._badges.delete(panel);
      this.tell();
    });
  }

  private watch(panel: NotebookPanel): void {
    const kernel = panel.isDisposed ? null : panel.sessionContext.session?.kernel;
    if (kernel !== null && kernel !== undefined && !kernel.isDisposed) {
      this.kernels.watch(kernel);
    }
  }

  private living(panel: NotebookPanel): Parameters<Badge['look']>[0] {
    const state = this.kernels.link(kernelOf(panel))?.state;
    return state?.experiments.find((one) => one.key === state.current) ?? null;
  }

  private tell(): void {
    const notebooks: Notebook[] = [];
    this.tracker.forEach((panel) => {
      notebooks.push(told(panel));
    });
    const panel = this.tracker.currentWidget;
    this.sidebar.setNotebooks(notebooks, panel === null ? null : told(panel));
  }
}

function kernelOf(panel: NotebookPanel): string | null {
  return panel.isDisposed ? null : (panel.sessionContext.session?.kernel?.id ?? null);
}

function told(panel: NotebookPanel): Notebook {
  return { path: panel.context.path, kernel: kernelOf(panel), shows: shownIn(panel) };
}

/** Names of the experiments whose figures a notebook shows. */
function shownIn(panel: NotebookPanel): readonly string[] {
  const names = new Set<string>();
  if (!panel.isDisposed && panel.context.isReady) {
    for (const cell of panel.context.model.cells) {
      for (let index = 0; isCodeCellModel(cell) && index < cell.outputs.length; index++) {
        const name = experimentOf(cell.outputs.get(index).data[PANEL_MIME]);
        if (name !== null) {
          names.add(name);
        }
      }
    }
  }
  return [...names];
}

function codeCells(panel: NotebookPanel): readonly Cell[] {
  const cells = panel.context.model.cells;
  const found: Cell[] = [];
  for (const cell of cells) {
    if (isCodeCellModel(cell)) {
      found.push({ source: cell.sharedModel.getSource(), identities: identities(cell) });
    }
  }
  return found;
}

function identities(cell: ICodeCellModel): readonly string[] {
  const found: string[] = [];
  for (let index = 0; index < cell.outputs.length; index++) {
    const identity = identityOf(cell.outputs.get(index).data[PANEL_MIME]);
    if (identity !== null) {
      found.push(identity);
    }
  }
  return found;
}

function remembered(panel: NotebookPanel): ReturnType<typeof fromMetadata> {
  return fromMetadata(panel.context.model.getMetadata(METADATA));
}

/** Identity and digests only, never a widget's state. */
function write(panel: NotebookPanel, badge: Badge): void {
  if (badge.provenance === null) {
    return;
  }
  const metadata = toMetadata(badge.provenance) as PartialJSONValue;
  const before = panel.context.model.getMetadata(METADATA) as PartialJSONValue | undefined;
  if (before === undefined || !JSONExt.deepEqual(before, metadata)) {
    panel.context.model.setMetadata(METADATA, metadata);
  }
}
