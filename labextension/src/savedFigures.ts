/**
 * The figures that a notebook keeps of an experiment, brought to what the kernel has.
 *
 * The kernel refreshes them by their display id. A page that was loaded again since does not know these ids any more, and
 * one that was closed heard nothing: it asks for the figures when it hears that they are newer than its own.
 */
import { isCodeCellModel } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { IMimeBundle, IOutput } from '@jupyterlab/nbformat';
import type { Experiment } from './experiments';
import type { JsonObject } from './protocol';
import { isOlder, PANEL_MIME } from './savedPanel';

/** Asks the notebook's kernel; undefined without a link. */
type Ask = (name: string, given: JsonObject) => Promise<JsonObject> | undefined;

export class SavedFigures {
  /** By experiment, the event up to which figures were asked for. */
  private readonly _asked = new Map<string, number>();

  constructor(
    private readonly panel: NotebookPanel,
    private readonly ask: Ask
  ) {}

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
    if (this.panel.isDisposed || !this.panel.context.isReady) {
      return;
    }
    for (const cell of this.panel.context.model.cells) {
      if (!isCodeCellModel(cell)) {
        continue;
      }
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
