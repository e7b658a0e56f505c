/** This page's end of a kernel's comm: what the kernel told last, and commands with their answers. The twin of lab/link.py. */
import { Signal, type ISignal } from '@lumino/signaling';
import { type KernelState, readState } from './experiments';
import {
  command,
  hello,
  merged,
  readMessage,
  ProtocolMismatch,
  type Greeting,
  type JsonObject
} from './protocol';

/** What carries messages to the kernel. */
export interface Wire {
  send(data: JsonObject): void;
}

interface Waiting {
  resolve(value: JsonObject): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

const PATIENCE_MS = 60_000;
/** What loads models or writes files is waited for longer. */
const SLOW: Readonly<Record<string, number>> = {
  export: 900_000,
  'export notebook': 900_000,
  replay: 900_000
};
const PATIENCE_MESSAGES = 10;
let links = 0;

export class Link {
  private readonly _changed = new Signal<this, void>(this);
  private readonly _waiting = new Map<string, Waiting>();
  private readonly _number = `${Date.now().toString(36)}-${String(++links)}`;
  private _commands = 0;
  private _raw: JsonObject | null = null;
  private _state: KernelState | null = null;
  private _seq = 0;
  private _asked = false;
  /** Messages that could not be used since everything was asked for. */
  private _missed = 0;
  private _problem: string | null = null;

  /**
   * @param wire To the kernel.
   * @param version Of this package.
   * @param greeting What the kernel is told of the person's settings.
   */
  constructor(
    private readonly wire: Wire,
    private readonly version: string,
    private greeting: Greeting
  ) {}

  /** Something that is shown may have changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** What the kernel told last; null before the first time. */
  get state(): KernelState | null {
    return this._state;
  }

  /** Why the two sides do not understand each other, in a sentence. */
  get problem(): string | null {
    return this._problem;
  }

  /** Ask for everything: at first, after a sleep, or when a message was missed. */
  greet(greeting: Greeting = this.greeting): void {
    this.greeting = greeting;
    this._asked = true;
    this._missed = 0;
    this.wire.send(hello(this.version, greeting));
  }

  /** Have something done; rejects with the kernel's own sentence when it cannot be. */
  command(name: string, given: JsonObject): Promise<JsonObject> {
    const id = `${this._number}-${String(++this._commands)}`;
    const patience = SLOW[name] ?? PATIENCE_MS;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this._waiting.delete(id);
        reject(new Error(`the kernel did not answer "${name}" within ${String(patience / 1000)} s.`));
      }, patience);
      this._waiting.set(id, { resolve, reject, timer });
      this.wire.send(command(this.version, id, name, given));
    });
  }

  /** Take a message of the kernel's. */
  receive(data: unknown): void {
    let message;
    try {
      message = readMessage(data, this.version);
    } catch (error) {
      if (error instanceof ProtocolMismatch) {
        this.tell(error.message);
      }
      return;
    }
    switch (message.kind) {
      case 'announce':
        this.greet();
        break;
      case 'snapshot':
        this._asked = false;
        this._problem = null;
        this.take(message.seq, message.state);
        break;
      case 'patch':
        this.patch(message.seq, message.changes);
        break;
      case 'answer':
        this.settle(message.id, message.value, message.error);
        break;
      case 'mismatch':
        this.tell(message.sentence);
        break;
    }
  }

  /** The kernel is gone, or is another one. */
  close(): void {
    for (const { reject, timer } of this._waiting.values()) {
      clearTimeout(timer);
      reject(new Error('the kernel was restarted or is gone.'));
    }
    this._waiting.clear();
    this._raw = null;
    this._state = null;
    this._changed.emit();
    Signal.clearData(this);
  }

  private patch(seq: number, changes: JsonObject): void {
    if (this._raw === null || seq > this._seq + 1) {
      if (this._asked && this._missed++ < PATIENCE_MESSAGES) {
        return; // everything is under way
      }
      this.greet();
    } else if (seq === this._seq + 1) {
      this.take(seq, merged(this._raw, changes));
    }
  }

  private take(seq: number, raw: JsonObject): void {
    this._seq = seq;
    this._raw = raw;
    this._state = readState(raw);
    this._changed.emit();
  }

  private settle(id: string, value: JsonObject, error: string | null): void {
    const waiting = this._waiting.get(id);
    if (waiting === undefined) {
      return; // another page's
    }
    this._waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error === null) {
      waiting.resolve(value);
    } else {
      waiting.reject(new Error(error));
    }
  }

  private tell(sentence: string): void {
    this._problem = sentence;
    this._changed.emit();
  }
}
