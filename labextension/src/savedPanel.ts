/**
 * What does a saved notebook tell of an experiment? Our mime type's data, checked: a notebook from elsewhere is untrusted.
 * Written by rf_notebook/views/saved.py; fixtures/panel.json is one.
 */
import { isObject } from './protocol';

export const PANEL_MIME = 'application/vnd.rf-notebook.panel+json';
const VERSION = 1;
const MOST_RUNS = 256;
const MOST_COLUMNS = 64;
const MOST_METRICS = 8;
const MOST_POINTS = 200_000;
const LONGEST = 300;

export interface SavedRun {
  readonly id: number;
  readonly state: string;
  readonly best: boolean;
  readonly cells: readonly string[];
  /** What sorting compares, where it is more than the text. */
  readonly values: readonly (number | string | null)[];
}

export interface SavedCurve {
  readonly run: number;
  readonly samples: readonly number[];
  readonly values: readonly number[];
}

/** Runs that were grouped: a row, and a mean curve for each metric. */
export interface SavedGroup {
  readonly title: string;
  readonly runs: readonly number[];
  readonly cells: readonly string[];
  readonly means: readonly SavedCurve[];
}

export interface SavedPanel {
  readonly kind: 'saved';
  readonly experiment: string;
  readonly identity: string | null;
  readonly summary: string;
  readonly columns: readonly string[];
  readonly runs: readonly SavedRun[];
  readonly curves: readonly { readonly metric: string; readonly runs: readonly SavedCurve[] }[];
  /** Which metrics had charts; empty for the first one alone. */
  readonly charts: readonly number[];
  readonly groups: readonly SavedGroup[];
}

/** The output that holds the live panel: the saved one follows it. */
export interface LivePanel {
  readonly kind: 'live';
  readonly experiment: string;
  readonly modelId: string;
}

/** Data that cannot be shown, and why, in one sentence. */
export interface Unreadable {
  readonly kind: 'unreadable';
  readonly sentence: string;
}

class Wrong extends Error {}

/** What the data of our mime type are; never throws. */
export function readPanel(data: unknown): SavedPanel | LivePanel | Unreadable {
  try {
    return read(data);
  } catch (error) {
    const why = error instanceof Wrong ? error.message : 'it cannot be read';
    return { kind: 'unreadable', sentence: `This saved panel is not shown: ${why}.` };
  }
}

/** The identity of the experiment whose panel the data are; null for none. */
export function identityOf(data: unknown): string | null {
  return isObject(data) && typeof data.identity === 'string' ? data.identity.slice(0, LONGEST) : null;
}

/** The name of the experiment whose panel the data are, live or saved; null for none. */
export function experimentOf(data: unknown): string | null {
  return isObject(data) && typeof data.experiment === 'string' ? data.experiment.slice(0, LONGEST) : null;
}

/** Whether the data are saved figures of this experiment from before an event; a live panel is none. */
export function isOlder(data: unknown, identity: string, seq: number): boolean {
  if (identityOf(data) !== identity || !isObject(data) || data.live === true) {
    return false;
  }
  return typeof data.seq !== 'number' || data.seq < seq;
}

function read(data: unknown): SavedPanel | LivePanel {
  const panel = object(data, 'it is no object');
  if (panel.version !== VERSION) {
    const theirs = typeof panel.version === 'number' ? String(panel.version) : 'unknown';
    throw new Wrong(
      `it has version ${theirs}, and this rf_notebook reads version ${String(VERSION)}; upgrade rf-notebook or run the notebook again`
    );
  }
  const experiment = text(panel.experiment, 'the name of its experiment is missing');
  if (panel.live === true) {
    return { kind: 'live', experiment, modelId: text(panel.model_id, 'its widget is missing') };
  }
  const columns = list(panel.columns, MOST_COLUMNS, 'columns').map((one) =>
    text(one, 'a column has no name')
  );
  const runs = list(panel.runs, MOST_RUNS, 'runs').map((one) => readRun(one, columns.length));
  let points = 0;
  const curves = list(panel.curves, MOST_METRICS, 'metrics').map((one) => {
    const of = object(one, 'a metric is no object');
    const drawn = list(of.runs, MOST_RUNS, 'curves').map((run) => {
      const curve = readCurve(run, MOST_POINTS - points);
      points += curve.samples.length;
      return curve;
    });
    return { metric: text(of.metric, 'a metric has no name'), runs: drawn };
  });
  const charts = list(panel.charts ?? [], MOST_METRICS, 'charts').map(whole);
  const groups = list(panel.groups ?? [], MOST_RUNS, 'groups').map((one) => {
    const group = object(one, 'a group is no object');
    const means = list(group.means, MOST_METRICS, 'means').map((raw) => {
      const curve = readCurve(raw, MOST_POINTS - points);
      points += curve.samples.length;
      return curve;
    });
    return {
      title: text(group.title, 'a group has no name'),
      runs: list(group.runs, MOST_RUNS, 'runs').map(whole),
      cells: list(group.cells, columns.length, 'cells').map((cell) => text(cell, 'a cell holds no text')),
      means
    };
  });
  return {
    kind: 'saved',
    experiment,
    identity: typeof panel.identity === 'string' ? short(panel.identity) : null,
    summary: typeof panel.summary === 'string' ? short(panel.summary) : '',
    columns,
    runs,
    curves,
    charts,
    groups
  };
}

function readRun(raw: unknown, columns: number): SavedRun {
  const run = object(raw, 'a run is no object');
  const cells = list(run.cells, columns, 'cells').map((one) => text(one, 'a cell holds no text'));
  const values = run.values === undefined ? [] : list(run.values, columns, 'values');
  return {
    id: whole(run.id),
    state: text(run.state, 'a run has no state'),
    best: run.best === true,
    cells,
    values: values.map((one) => (typeof one === 'number' ? one : typeof one === 'string' ? short(one) : null))
  };
}

function readCurve(raw: unknown, most: number): SavedCurve {
  const curve = object(raw, 'a curve is no object');
  const samples = list(curve.samples, most, 'points');
  const values = list(curve.values, most, 'points');
  if (samples.length !== values.length) {
    throw new Wrong('a curve has more places than values');
  }
  return { run: whole(curve.id), samples: figures(samples), values: figures(values) };
}

function figures(values: readonly unknown[]): readonly number[] {
  if (!values.every((one): one is number => typeof one === 'number' && Number.isFinite(one))) {
    throw new Wrong('a curve holds what is not a number');
  }
  return values;
}

function whole(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new Wrong('the number of a run is none');
  }
  return value;
}

function object(value: unknown, why: string): Readonly<Record<string, unknown>> {
  if (!isObject(value)) {
    throw new Wrong(why);
  }
  return value;
}

function list(value: unknown, most: number, what: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new Wrong(`its ${what} are no list`);
  }
  if (value.length > most) {
    throw new Wrong(`it holds more ${what} than rf_notebook writes`);
  }
  return value;
}

function text(value: unknown, why: string): string {
  if (typeof value !== 'string') {
    throw new Wrong(why);
  }
  return short(value);
}

function short(value: string): string {
  return value.length <= LONGEST ? value : `${value.slice(0, LONGEST - 1)}…`;
}

/** The rows by a column: numbers before texts before nothing, and by id where they are equal. */
export function sortedRuns(panel: SavedPanel, column: number, descending: boolean): readonly SavedRun[] {
  const sign = descending ? -1 : 1;
  const value = (run: SavedRun): number | string | null =>
    run.values.length > 0 ? (run.values[column] ?? null) : (run.cells[column] ?? null);
  return [...panel.runs].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) {
      return Number(a === null) - Number(b === null) || one.id - other.id;
    }
    if (typeof a === 'number' && typeof b === 'number') {
      return sign * (a - b) || one.id - other.id;
    }
    return sign * String(a).localeCompare(String(b)) || one.id - other.id;
  });
}
