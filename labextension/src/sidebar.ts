/** What does the sidebar show, and what do its buttons do? A model without a DOM; views draw it, tests turn it by hand. */
import { Signal, type ISignal } from '@lumino/signaling';
import { ordered, type Experiment, type KernelState, type Recorded, type Run } from './experiments';
import type { Link } from './link';
import type { JsonObject } from './protocol';

/** An open notebook. */
export interface Notebook {
  /** Its path on the server. */
  readonly path: string;
  readonly kernel: string | null;
  /** Names of the experiments whose figures it shows. */
  readonly shows?: readonly string[];
}

/** The links by kernel. */
export interface Links {
  readonly changed: ISignal<Links, void>;
  link(kernel: string | null): Link | null;
}

/** A kernel that speaks, and the notebooks that it belongs to. */
export interface Group {
  readonly kernel: string;
  readonly notebooks: readonly string[];
  readonly link: Link;
  readonly state: KernelState | null;
}

/** An experiment, and who to ask about it. */
export interface Subject {
  readonly group: Group;
  readonly experiment: Experiment;
}

/** What a button said last. */
export interface Message {
  readonly kind: 'done' | 'refused' | 'waiting';
  readonly text: string;
}

export class Sidebar {
  private readonly _changed = new Signal<this, void>(this);
  private _notebooks: readonly Notebook[] = [];
  private _notebook: Notebook | null = null;
  private _chosen: { readonly kernel: string; readonly key: string } | null = null;
  private _offered: string | null = null;
  private _selected: ReadonlySet<number> = new Set();
  private _order: 'run' | 'metric' = 'run';
  private _message: Message | null = null;
  private _files: readonly Recorded[] = [];

  constructor(private readonly links: Links) {
    links.changed.connect(() => {
      this.kernelSpoke();
    });
  }

  /** Something that is shown may have changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The notebook that was used last. */
  get notebook(): Notebook | null {
    return this._notebook;
  }

  /** Every kernel that speaks, that of the current notebook first. */
  get groups(): readonly Group[] {
    const found = new Map<string, Group>();
    const current = this._notebook === null ? [] : [this._notebook];
    for (const { kernel } of [...current, ...this._notebooks]) {
      const link = this.links.link(kernel);
      if (kernel !== null && link !== null && !found.has(kernel)) {
        const notebooks = this._notebooks.filter((one) => one.kernel === kernel).map((one) => one.path);
        found.set(kernel, { kernel, notebooks, link, state: link.state });
      }
    }
    return [...found.values()];
  }

  /** The experiment that the buttons act on: the chosen one, or the one the current notebook's kernel used last. */
  get subject(): Subject | null {
    const groups = this.groups;
    const chosen = this._chosen;
    if (chosen !== null) {
      const group = groups.find((one) => one.kernel === chosen.kernel);
      const experiment = group?.state?.experiments.find((one) => one.key === chosen.key);
      if (group !== undefined && experiment !== undefined) {
        return { group, experiment };
      }
    }
    const [first] = groups;
    if (first === undefined || first.kernel !== this._notebook?.kernel) {
      return null;
    }
    const experiment = first.state?.experiments.find((one) => one.key === first.state?.current);
    return experiment === undefined ? null : { group: first, experiment };
  }

  /** Why the current notebook's kernel cannot be understood, in a sentence. */
  get problem(): string | null {
    return this.groups.find((group) => group.link.problem !== null)?.link.problem ?? null;
  }

  /** What lies on disk: as the current kernel tells it, or the names in the notebook's folder while none speaks. */
  get recorded(): readonly Recorded[] {
    const link = this.links.link(this._notebook?.kernel ?? null);
    return link?.state?.recorded ?? (link === null ? this._files : []);
  }

  get order(): 'run' | 'metric' {
    return this._order;
  }

  set order(order: 'run' | 'metric') {
    this._order = order;
    this._changed.emit();
  }

  get message(): Message | null {
    return this._message;
  }

  /** The runs of the current experiment, in the order that was chosen. */
  get runs(): readonly Run[] {
    const subject = this.subject;
    return subject === null ? [] : ordered(subject.experiment, this._order);
  }

  /** Ids of the selected runs that there still are. */
  get selected(): readonly number[] {
    return this.runs.filter((run) => this._selected.has(run.id)).map((run) => run.id);
  }

  /** Select or unselect a run. */
  toggle(run: number): void {
    const selected = new Set(this._selected);
    if (!selected.delete(run)) {
      selected.add(run);
    }
    this._selected = selected;
    this._changed.emit();
  }

  /** Act on another experiment until the notebook changes or its kernel begins a new one. */
  choose(kernel: string, key: string): void {
    this._chosen = { kernel, key };
    this._selected = new Set();
    this._changed.emit();
  }

  /** The open notebooks, and the one that was used last. */
  setNotebooks(notebooks: readonly Notebook[], current: Notebook | null): void {
    if (current?.path !== this._notebook?.path) {
      this._chosen = null;
      this._selected = new Set();
      this._message = null;
    }
    this._notebooks = notebooks;
    this._notebook = current;
    this._changed.emit();
  }

  /** Names of recorded experiments as the notebook's folder tells them. */
  setFiles(names: readonly string[]): void {
    this._files = names.map((name) => ({ name, standing: 'recorded', runs: null, words: '' }));
    this._changed.emit();
  }

  /** The selected runs on which a verb is allowed. */
  allowed(verb: string): readonly number[] {
    const selected = new Set(this.selected);
    return this.runs.filter((run) => selected.has(run.id) && run.can.includes(verb)).map((run) => run.id);
  }

  /**
   * Have runs of the current experiment stopped, resumed, deleted or retried; tells how it went.
   *
   * @returns Whether it was done.
   */
  async operate(verb: string, runs: readonly number[]): Promise<boolean> {
    if (runs.length === 0) {
      return false;
    }
    const names = runs.map((run) => `run ${String(run)}`).join(', ');
    return (await this.ask(verb, { runs }, `${verb}: ${names}`)) !== null;
  }

  /** Pause or go on, whichever it is not. */
  async togglePause(): Promise<boolean> {
    const paused = this.subject?.experiment.paused ?? false;
    return (await this.ask(paused ? 'go on' : 'pause', {}, paused ? 'all resumed' : 'all paused')) !== null;
  }

  /** End the current experiment, keeping everything. */
  async end(): Promise<boolean> {
    return (await this.ask('end', {}, 'ended; run its cell again to continue')) !== null;
  }

  /** Id of the live panel's widget. */
  async panelModel(): Promise<string | null> {
    return modelId(await this.ask('panel', {}, null));
  }

  /** Open the form that clones a run; id of the form's widget. */
  async cloneModel(run: number, warm: boolean): Promise<string | null> {
    return modelId(await this.ask('clone', { runs: [run], warm }, null));
  }

  /** Write a run's adapter to a folder, seen from the kernel's working directory. */
  async exportRun(run: number, path: string): Promise<boolean> {
    return (await this.ask('export', { runs: [run], path }, `run ${String(run)} is in ${path}`)) !== null;
  }

  /** Train the current experiment again under another name, operations included, and compare. */
  async replay(): Promise<boolean> {
    return (
      (await this.ask(
        'replay',
        {},
        'the replay has begun; a message tells at its end whether it is equal'
      )) !== null
    );
  }

  /** Write the current experiment as a notebook, seen from the kernel's working directory. */
  async exportNotebook(path: string): Promise<boolean> {
    return (await this.ask('export notebook', { path }, `the experiment is in ${path}`)) !== null;
  }

  /** Where the experiment's log lies, seen from the kernel's working directory. */
  async logPath(): Promise<string | null> {
    const value = await this.ask('log', {}, null);
    return typeof value?.path === 'string' ? value.path : null;
  }

  /** Read a recorded experiment into the current notebook's kernel; false when that kernel does not speak. */
  async reopen(name: string): Promise<boolean> {
    const link = this.links.link(this._notebook?.kernel ?? null);
    if (link === null) {
      return false;
    }
    this._chosen = null;
    return (await this.send(link, 'open', { name }, `reopened ${name}`)) !== null;
  }

  /** Remove a recorded experiment from the disk; false when the notebook's kernel does not speak, or refused. */
  async remove(name: string): Promise<boolean> {
    const link = this.links.link(this._notebook?.kernel ?? null);
    if (link === null) {
      this.refuse('open a notebook with a kernel that has imported rf_notebook, to remove an experiment.');
      return false;
    }
    return (await this.send(link, 'remove', { name }, `removed ${name}`)) !== null;
  }

  /** Tell that something cannot be done. */
  refuse(text: string): void {
    this.say({ kind: 'refused', text });
  }

  private async ask(name: string, given: JsonObject, done: string | null): Promise<JsonObject | null> {
    const subject = this.subject;
    if (subject === null) {
      this.refuse('there is no experiment in this notebook; run a cell that starts one.');
      return null;
    }
    const { group, experiment } = subject;
    return this.send(group.link, name, { experiment: experiment.key, ...given }, done);
  }

  private async send(
    link: Link,
    name: string,
    given: JsonObject,
    done: string | null
  ): Promise<JsonObject | null> {
    this.say({ kind: 'waiting', text: `${name} …` });
    try {
      const value = await link.command(name, given);
      this.say(done === null ? null : { kind: 'done', text: done });
      return value;
    } catch (error) {
      this.refuse(error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  private say(message: Message | null): void {
    this._message = message;
    this._changed.emit();
  }

  private kernelSpoke(): void {
    const offered = this.links.link(this._notebook?.kernel ?? null)?.state?.current ?? null;
    if (offered !== null && this._offered !== null && offered !== this._offered) {
      this._chosen = null; // the kernel began another
    }
    this._offered = offered;
    this._changed.emit();
  }
}

function modelId(value: JsonObject | null): string | null {
  return typeof value?.model_id === 'string' ? value.model_id : null;
}
