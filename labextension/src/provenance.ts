/**
 * Does a notebook still say what its experiment was made from?
 *
 * The kernel tells the digests of the cells that had been run when the experiment was launched; the notebook's cells are
 * compared with them, also later, when they come from the notebook's metadata. The twin of rf_notebook/jupyterlab/provenance.py.
 */
import { isObject, type JsonObject } from './protocol';

/** Key of the notebook's metadata. */
export const METADATA = 'rf_notebook';
const VERSION = 1;
const MOST_CELLS = 500;
const LONGEST = 200;

/** Digests of the cells that were run before the experiment began, and of the one that began it. */
export interface Sources {
  readonly ran: readonly string[];
  readonly launch: string;
}

/** What a notebook remembers of its experiment. */
export interface Provenance {
  readonly experiment: string;
  readonly identity: string;
  readonly spec: string;
  readonly sources: Sources;
}

/** One code cell of a notebook. */
export interface Cell {
  readonly source: string;
  /** Identities of the experiments whose panels its outputs hold. */
  readonly identities: readonly string[];
}

/** Gives the sha256 of a cell's text. */
export type Digest = (source: string) => string;

export type Verdict =
  | { readonly kind: 'reproducible'; readonly words: string }
  | { readonly kind: 'changed'; readonly words: string };

/**
 * Whether running the notebook's cells again, up to the one that launched the experiment, does what was done.
 *
 * @param cells The notebook's code cells in their order.
 * @param remembered Of the experiment.
 * @param digest See digest.ts.
 */
export function judge(cells: readonly Cell[], remembered: Provenance, digest: Digest): Verdict {
  const { sources, experiment, identity } = remembered;
  const digests = cells.map((cell) => digest(cell.source));
  let launching = digests.lastIndexOf(sources.launch);
  if (launching < 0) {
    launching = cells.findIndex((cell) => cell.identities.includes(identity));
    const where = launching < 0 ? 'is gone' : `(code cell ${String(launching + 1)}) was changed`;
    return { kind: 'changed', words: `changed since run: the cell that started ${experiment} ${where}` };
  }
  const ran = new Set(sources.ran);
  const other = digests
    .slice(0, launching)
    .findIndex((found, index) => !ran.has(found) && cells[index]?.source.trim() !== '');
  if (other >= 0) {
    return {
      kind: 'changed',
      words: `changed since run: code cell ${String(other + 1)} is not as it was run before ${experiment} began`
    };
  }
  return {
    kind: 'reproducible',
    words: `reproducible: running the first ${String(launching + 1)} code cells again does what ${experiment} did`
  };
}

/** What goes into the notebook's metadata. */
export function toMetadata(remembered: Provenance): JsonObject {
  const { experiment, identity, spec, sources } = remembered;
  return { version: VERSION, experiment, identity, spec, launch: sources.launch, ran: sources.ran };
}

/** What a notebook's metadata say; null when they say nothing that can be read. They are untrusted. */
export function fromMetadata(value: unknown): Provenance | null {
  if (!isObject(value) || value.version !== VERSION) {
    return null;
  }
  const { experiment, identity, spec, launch, ran } = value;
  if (!isShort(experiment) || !isShort(identity) || !isShort(spec) || !isShort(launch)) {
    return null;
  }
  if (!Array.isArray(ran) || ran.length > MOST_CELLS || !ran.every(isShort)) {
    return null;
  }
  return { experiment, identity, spec, sources: { launch, ran } };
}

function isShort(value: unknown): value is string {
  return typeof value === 'string' && value.length <= LONGEST;
}
