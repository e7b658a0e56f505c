/**
 * Which kernels are spoken with? One link for each kernel of an open notebook that has rf_notebook loaded.
 *
 * The kernel's comm is never opened on the wire (rf_notebook/jupyterlab/link.py says why): it is adopted when one of its
 * messages is heard, or found in the kernel's list of comms.
 */
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { Signal, type ISignal } from '@lumino/signaling';
import { Link } from './link';
import { isOurs, TARGET, type Greeting, type JsonObject } from './protocol';

/** Makes a connection of one's own to a kernel whose comms another connection handles. */
export type Connect = (model: Kernel.IModel) => Kernel.IKernelConnection;

/** Listens to one kernel, and links with it as soon as it speaks. */
export class KernelWatch {
  private readonly _changed = new Signal<this, void>(this);
  private _link: Link | null = null;
  private _comm: Kernel.IComm | null = null;
  private _own: Kernel.IKernelConnection | null = null;
  private _disposed = false;
  /** Comms of processes that are gone: a last message of theirs can still come. */
  private readonly _gone = new Set<string>();

  constructor(
    readonly kernel: Kernel.IKernelConnection,
    private readonly connect: Connect,
    private readonly version: string,
    private greeting: Greeting
  ) {
    kernel.iopubMessage.connect(this.overhear, this);
    kernel.statusChanged.connect(this.statusChanged, this);
    kernel.connectionStatusChanged.connect(this.connectionChanged, this);
    kernel.disposed.connect(this.dispose, this);
    void this.find();
  }

  /** The link, or what it tells, may have changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null while the kernel has not spoken. */
  get link(): Link | null {
    return this._link;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  greet(greeting: Greeting): void {
    this.greeting = greeting;
    this._link?.greet(greeting);
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    this.drop();
    this._own?.dispose();
    Signal.disconnectReceiver(this);
    Signal.clearData(this);
  }

  /** Look for the comm of a kernel that was there before this page; a busy kernel answers when it is free. */
  private async find(): Promise<void> {
    try {
      const { language_info } = await this.kernel.info;
      if (language_info.name !== 'python') {
        return;
      }
      const reply = await this.kernel.requestCommInfo({ target_name: TARGET });
      if (reply.content.status === 'ok') {
        const [id] = Object.keys(reply.content.comms);
        if (id !== undefined) {
          await this.adopt(id, null);
        }
      }
    } catch {
      return; // the kernel went away meanwhile; nothing is to be told
    }
  }

  private overhear(_kernel: Kernel.IKernelConnection, message: KernelMessage.IIOPubMessage): void {
    if (this._comm !== null || message.header.msg_type !== 'comm_msg') {
      return;
    }
    const { comm_id, data } = (message as KernelMessage.ICommMsgMsg).content;
    if (isOurs(data)) {
      void this.adopt(comm_id, data);
    }
  }

  private async adopt(id: string, first: unknown): Promise<void> {
    if (this._comm !== null || this._disposed || this._gone.has(id)) {
      return;
    }
    let kernel = this.kernel;
    if (!kernel.handleComms) {
      kernel = this._own ??= this.connect({ id: kernel.id, name: kernel.name });
    }
    if (kernel.hasComm(id)) {
      return;
    }
    const comm = kernel.createComm(TARGET, id);
    const link = new Link(
      {
        send: (data: JsonObject) => {
          if (!comm.isDisposed) {
            comm.send(data as Parameters<Kernel.IComm['send']>[0]);
          }
        }
      },
      this.version,
      this.greeting
    );
    comm.onMsg = (message) => {
      link.receive(message.content.data);
    };
    this._comm = comm;
    this._link = link;
    link.changed.connect(() => {
      this._changed.emit();
    });
    await subshellOf(comm, kernel);
    if (this._comm === comm) {
      link.receive(first);
      link.greet();
    }
  }

  private statusChanged(_kernel: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      this.drop();
    }
  }

  private connectionChanged(_kernel: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    if (status === 'connected') {
      this._link?.greet(); // messages were missed while the page slept
    }
  }

  private drop(): void {
    const link = this._link;
    if (this._comm !== null) {
      this._gone.add(this._comm.commId);
      this._comm.dispose();
    }
    this._comm = null;
    this._link = null;
    link?.close();
    if (link !== null && !this._disposed) {
      this._changed.emit();
    }
  }
}

/** What is sent before its subshell is there goes to the shell that a running cell blocks. */
async function subshellOf(comm: Kernel.IComm, kernel: Kernel.IKernelConnection): Promise<void> {
  const { subshellStarted } = comm as Kernel.IComm & { readonly subshellStarted?: Promise<void> };
  if (kernel.supportsSubshells) {
    await subshellStarted?.catch(() => undefined);
  }
}

/** The watches of all kernels. */
export class Kernels {
  private readonly _changed = new Signal<this, void>(this);
  private readonly _watches = new Map<string, KernelWatch>();

  constructor(
    private readonly connect: Connect,
    private readonly version: string,
    private greeting: Greeting
  ) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Watch a kernel; several connections to one kernel share a watch. */
  watch(kernel: Kernel.IKernelConnection): KernelWatch {
    const present = this._watches.get(kernel.id);
    if (present !== undefined && !present.isDisposed) {
      return present;
    }
    const made = new KernelWatch(kernel, this.connect, this.version, this.greeting);
    this._watches.set(kernel.id, made);
    made.changed.connect(() => {
      this._changed.emit();
    });
    kernel.disposed.connect(() => {
      this._watches.delete(kernel.id);
      this._changed.emit();
    });
    return made;
  }

  /** The link with a kernel. */
  link(kernelId: string | null): Link | null {
    return kernelId === null ? null : (this._watches.get(kernelId)?.link ?? null);
  }

  /** Tell all kernels what the person's settings are. */
  greet(greeting: Greeting): void {
    this.greeting = greeting;
    for (const watch of this._watches.values()) {
      watch.greet(greeting);
    }
  }
}
