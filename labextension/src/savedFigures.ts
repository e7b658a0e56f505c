/**
 * The figures that a notebook keeps of an experiment, brought to what the kernel has.
 *
 * The kernel refreshes them by their display id. A page that was loaded again since does not know these ids any more, and
 * one that was closed heard nothing: it asks for the figures when it hears that they are newer than its own. A page that was
 * loaded again before the notebook was saved has lost them with the panel: both are put back.
 */
import { isCodeCellModel, type ICellModel, type ICodeCellModel } from '@jupyterlab/cells';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { IMimeBundle, IOutput } from '@jupyterlab/nbformat';
import type { Experiment } from './experiments';
import type { JsonObject } from './protocol';
import { identityOf, isOlder, PANEL_MIME } from './savedPanel';

/** Asks the notebook's kernel; undefined without a link. */
type Ask = (name: string, given: JsonObject) => Promise<JsonObject> | undefined;

type Scheduled = { notebook: NotebookPanel['content']; cell: { model: ICellModel } };

export class SavedFigures {
  /** By experiment, the event up to which figures were asked for. */
  private readonly _asked = new Map<string, number>();
  /** The experiments whose panel is in the notebook, as far as this page has found out. */
  private readonly _there = new Set<string>();
  /** Cells that this page has run: what they show comes, or is missing because somebody cleared it. */
  private readonly _ran = new WeakSet<ICellModel>();

  constructor(
    private readonly panel: NotebookPanel,
    private readonly ask: Ask
  ) {
    const scheduled = (_sender: unknown, { notebook, cell }: Scheduled): void => {
      if (notebook === panel.content) {
        this._ran.add(cell.model);
      }
    };
    NotebookActions.executionScheduled.connect(scheduled);
    panel.disposed.connect(() => {
      NotebookActions.executionScheduled.disconnect(scheduled);
    });
  }

  /** Put the panel of an experiment back below the cell that launched it, where that shows nothing. */
  putBack(experiments: readonly Experiment[], digest: (source: string) => string): void {
    for (const { key, identity, saved, sources } of experiments) {
      if (identity === null || saved === 0 || sources === null || this._there.has(key)) {
        continue;
      }
      this._there.add(key);
      const cells = this.codeCells();
      const launching = cells
        .filter((cell) => digest(cell.sharedModel.getSource()) === sources.launch)
        .at(-1);
      if (launching === undefined || cells.some((cell) => shows(cell, identity)) || !this.isBare(launching)) {
        continue;
      }
      void this.ask('outputs', { experiment: key })?.then(
        ({ outputs }) => {
          if (this.isBare(launching) && Array.isArray(outputs)) {
            launching.trusted = true; // as when it is run: there is nothing in it but what its kernel says now
            for (const data of outputs as unknown as IMimeBundle[]) {
              launching.outputs.add({ output_type: 'display_data', metadata: {}, data });
            }
          }
        },
        () => {
          this._there.delete(key); // the next news asks again
        }
      );
    }
  }

  private isBare(cell: ICodeCellModel): boolean {
    return !cell.isDisposed && !this._ran.has(cell) && cell.outputs.length === 0;
  }

  private codeCells(): readonly ICodeCellModel[] {
    if (this.panel.isDisposed || !this.panel.context.isReady) {
      return [];
    }
    return [...this.panel.context.model.cells].filter(isCodeCellModel);
  }

  bringUpToDate(experiments: readonly Experiment[]): void {
    for (const { key, identity, saved } of experiments) {
      if (identity === null || saved <= (this._asked.get(key) ?? 0) || !this.has(identity, saved)) {
        continue;
      }
      const answer = this.ask('saved', { experiment: key });
      if (answer !== undefined) {
        this._asked.set(key, saved);
        void answer.then(
          ({ data }) => {
            this.put(identity, saved, data as unknown as IMimeBundle);
          },
          () => {
            this._asked.delete(key); // the next news asks again
          }
        );
      }
    }
  }

  private has(identity: string, seq: number): boolean {
    let found = false;
    this.each(identity, seq, () => {
      found = true;
    });
    return found;
  }

  private put(identity: string, seq: number, data: IMimeBundle): void {
    this.each(identity, seq, (set) => {
      set(data);
    });
  }

  /** Calls back for every output with older figures of an experiment. */
  private each(identity: string, seq: number, found: (set: (data: IMimeBundle) => void) => void): void {
    for (const cell of this.codeCells()) {
      for (let index = 0; index < cell.outputs.length; index++) {
        const output = cell.outputs.get(index);
        if (isOlder(output.data[PANEL_MIME], identity, seq)) {
          found((data) => {
            cell.outputs.set(index, { ...output.toJSON(), data } as IOutput);
          });
        }
      }
    }
  }
}

/** Whether a cell shows figures of an experiment. */
function shows(cell: ICodeCellModel, identity: string): boolean {
  for (let index = 0; index < cell.outputs.length; index++) {
    if (identityOf(cell.outputs.get(index).data[PANEL_MIME]) === identity) {
      return true;
    }
  }
  return false;
}
