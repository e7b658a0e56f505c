/** Which experiment is a notebook's, and does the notebook still say what it was made from? A model without a DOM. */
import { Signal, type ISignal } from '@lumino/signaling';
import type { Experiment } from './experiments';
import { judge, type Cell, type Digest, type Provenance, type Verdict } from './provenance';

/** A notebook as the badge reads it. */
export interface Document {
  /** Its code cells in their order. */
  cells(): readonly Cell[];
  /** What it remembers of its experiment; null for nothing. */
  remembered(): Provenance | null;
}

export class Badge {
  private readonly _changed = new Signal<this, void>(this);
  private _verdict: Verdict | null = null;
  private _provenance: Provenance | null = null;

  constructor(private readonly document: Document) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null for a notebook without an experiment. */
  get verdict(): Verdict | null {
    return this._verdict;
  }

  /** What the notebook is to remember when it is saved. */
  get provenance(): Provenance | null {
    return this._provenance;
  }

  /** Whether there is anything to look at. @param experiment As of look. */
  isNeeded(experiment: Experiment | null): boolean {
    return this._verdict !== null || experiment !== null || this.document.remembered() !== null;
  }

  /**
   * Look again.
   *
   * @param experiment The one that the notebook's kernel used last.
   * @param digest See digest.ts.
   */
  look(experiment: Experiment | null, digest: Digest): void {
    const cells = this.document.cells();
    const remembered = this.document.remembered();
    const living = experiment === null ? null : provenanceOf(experiment);
    const isOurs =
      living !== null &&
      cells.some(
        (cell) => cell.identities.includes(living.identity) || digest(cell.source) === living.sources.launch
      );
    this._provenance = isOurs ? living : remembered;
    const verdict = this._provenance === null ? null : judge(cells, this._provenance, digest);
    if (verdict?.words !== this._verdict?.words) {
      this._verdict = verdict;
      this._changed.emit();
    }
  }
}

function provenanceOf(experiment: Experiment): Provenance | null {
  const { name, identity, spec, sources } = experiment;
  return identity === null || spec === null || sources === null
    ? null
    : { experiment: name, identity, spec, sources };
}
