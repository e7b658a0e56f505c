/** What is known of a kernel's experiments: the kernel's state, read. The twin of rf_notebook/jupyterlab/experiments.py. */
import { isObject, type Json, type JsonObject } from './protocol';
import type { Sources } from './provenance';

export interface Run {
  readonly id: number;
  readonly state: string;
  /** The state, or what a run in the rotation does. */
  readonly word: string;
  /** Between 0 and 1. */
  readonly progress: number;
  /** The latest value of the experiment's metric. */
  readonly value: number | null;
  readonly best: boolean;
  readonly knobs: readonly string[];
  readonly parent: number | null;
  readonly warm: boolean;
  readonly error: string | null;
  /** The verbs that are allowed now. */
  readonly can: readonly string[];
  readonly spark: readonly number[];
}

export interface Experiment {
  /** Its folder; tells it from others. */
  readonly key: string;
  readonly name: string;
  readonly identity: string | null;
  readonly standing: string;
  readonly words: string;
  readonly heldUp: string | null;
  readonly isOpen: boolean;
  readonly paused: boolean;
  readonly progress: number;
  readonly leftSeconds: number | null;
  readonly active: number;
  readonly failed: number;
  readonly total: number;
  readonly metric: string | null;
  readonly direction: 'min' | 'max';
  readonly runs: readonly Run[];
  readonly spec: string | null;
  readonly sources: Sources | null;
  /** Number of the newest event that the saved figures show, as the kernel has them. */
  readonly saved: number;
}

/** An experiment that lies on disk. */
export interface Recorded {
  readonly name: string;
  readonly standing: string;
  readonly runs: number | null;
  /** When it was written, its size, what was best; empty where no kernel tells. */
  readonly words: string;
}

export interface KernelState {
  /** Key of the experiment that was used last. */
  readonly current: string | null;
  readonly experiments: readonly Experiment[];
  readonly recorded: readonly Recorded[];
}

const readRuns = new WeakMap<object, Run>();
const readExperiments = new WeakMap<object, Experiment>();

/** The state as the kernel tells it. Parts that are the same object as before give the same object again. */
export function readState(state: JsonObject): KernelState {
  return {
    current: text(state.current),
    experiments: entries(state.experiments).map(([key, raw]) =>
      remembered(readExperiments, raw, () => experiment(key, raw))
    ),
    recorded: entries(state.recorded).map(([name, raw]) => ({
      name,
      standing: text(raw.standing) ?? 'finished',
      runs: numeric(raw.runs),
      words: text(raw.words) ?? ''
    }))
  };
}

function experiment(key: string, raw: JsonObject): Experiment {
  const runs = entries(raw.runs).map(([, run]) => remembered(readRuns, run, () => readRun(run)));
  return {
    key,
    name: text(raw.name) ?? key,
    identity: text(raw.identity),
    standing: text(raw.standing) ?? 'ended',
    words: text(raw.words) ?? '',
    heldUp: text(raw.held_up),
    isOpen: raw.is_open === true,
    paused: raw.paused === true,
    progress: numeric(raw.progress) ?? 0,
    leftSeconds: numeric(raw.left_seconds),
    active: numeric(raw.active) ?? 0,
    failed: numeric(raw.failed) ?? 0,
    total: numeric(raw.total) ?? 0,
    metric: text(raw.metric),
    direction: raw.direction === 'max' ? 'max' : 'min',
    runs: runs.sort((one, other) => one.id - other.id),
    spec: text(raw.spec),
    sources: sources(raw.sources),
    saved: numeric(raw.saved) ?? 0
  };
}

function readRun(raw: JsonObject): Run {
  return {
    id: numeric(raw.id) ?? 0,
    state: text(raw.state) ?? 'queued',
    word: text(raw.word) ?? '',
    progress: numeric(raw.progress) ?? 0,
    value: numeric(raw.value),
    best: raw.best === true,
    knobs: list(raw.knobs).filter((one) => typeof one === 'string'),
    parent: numeric(raw.parent),
    warm: raw.warm === true,
    error: text(raw.error),
    can: list(raw.can).filter((one) => typeof one === 'string'),
    spark: list(raw.spark).filter((one) => typeof one === 'number')
  };
}

/** Runs as a person wants them ordered: by id, or the best first and those without a value last. */
export function ordered(shown: Experiment, by: 'run' | 'metric'): readonly Run[] {
  if (by === 'run') {
    return shown.runs;
  }
  const sign = shown.direction === 'min' ? 1 : -1;
  return [...shown.runs].sort((one, other) => {
    if (one.value === null || other.value === null) {
      return Number(one.value === null) - Number(other.value === null) || one.id - other.id;
    }
    return sign * (one.value - other.value) || one.id - other.id;
  });
}

/** Runs in the order in which they are seen, new ones behind. */
export function inPlace(runs: readonly Run[], seen: readonly number[]): readonly Run[] {
  const place = new Map(seen.map((id, index) => [id, index]));
  return [...runs].sort(
    (one, other) => (place.get(one.id) ?? seen.length) - (place.get(other.id) ?? seen.length)
  );
}

function sources(raw: Json | undefined): Sources | null {
  if (!isObject(raw)) {
    return null;
  }
  const launch = text((raw as JsonObject).launch);
  const ran = list((raw as JsonObject).ran).filter((one) => typeof one === 'string');
  return launch === null ? null : { launch, ran };
}

function remembered<Value>(memory: WeakMap<object, Value>, raw: object, read: () => Value): Value {
  let value = memory.get(raw);
  if (value === undefined) {
    value = read();
    memory.set(raw, value);
  }
  return value;
}

function entries(value: Json | undefined): [string, JsonObject][] {
  return isObject(value)
    ? Object.entries(value).filter((entry): entry is [string, JsonObject] => isObject(entry[1]))
    : [];
}

function list(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? (value as readonly Json[]) : [];
}

function text(value: Json | undefined): string | null {
  return typeof value === 'string' ? value : null;
}

function numeric(value: Json | undefined): number | null {
  return typeof value === 'number' ? value : null;
}
