/**
 * What do the kernel and this extension say to each other?
 *
 * The twin of rf_notebook/jupyterlab/protocol.py, which describes the messages; both pass fixtures/protocol.json.
 */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** Raise it when an older page or kernel would misunderstand. */
export const PROTOCOL = 1;
/** The name of the comm. */
export const TARGET = 'rf_notebook';

export type KernelMessage =
  | { readonly kind: 'announce' }
  | { readonly kind: 'snapshot'; readonly seq: number; readonly state: JsonObject }
  | { readonly kind: 'patch'; readonly seq: number; readonly changes: JsonObject }
  | {
      readonly kind: 'answer';
      readonly id: string;
      readonly value: JsonObject;
      readonly error: string | null;
    }
  | { readonly kind: 'mismatch'; readonly sentence: string };

/** What the kernel is told of the person's settings. */
export interface Greeting {
  readonly everySeconds: number;
  readonly colours: readonly string[];
}

/** What is no message of this protocol. */
export class ProtocolError extends Error {}

/** The other side speaks another protocol; the message tells which package to bring up to date. */
export class ProtocolMismatch extends ProtocolError {}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether data of a comm message came from rf_notebook, of whatever protocol. */
export function isOurs(data: unknown): boolean {
  return isObject(data) && typeof data.rf_notebook === 'number' && typeof data.kind === 'string';
}

/**
 * What the kernel said.
 *
 * @param data As it came.
 * @param version Of this package, for the sentence about other ones.
 * @throws ProtocolMismatch when the kernel speaks another protocol, ProtocolError for what is no message.
 */
export function readMessage(data: unknown, version: string): KernelMessage {
  if (!isObject(data) || typeof data.rf_notebook !== 'number') {
    throw new ProtocolError("this is no message of rf_notebook's kernel side.");
  }
  if (data.rf_notebook !== PROTOCOL) {
    throw new ProtocolMismatch(mismatchSentence(data.rf_notebook, data.version, version));
  }
  switch (data.kind) {
    case 'announce':
      return { kind: 'announce' };
    case 'snapshot':
      return { kind: 'snapshot', seq: count(data.seq), state: object(data.state) };
    case 'patch':
      return { kind: 'patch', seq: count(data.seq), changes: object(data.changes) };
    case 'answer':
      return {
        kind: 'answer',
        id: text(data.id),
        value: data.value === undefined ? {} : object(data.value),
        error: data.error === undefined ? null : text(data.error)
      };
    case 'mismatch':
      return { kind: 'mismatch', sentence: text(data.sentence) };
    default:
      throw new ProtocolError(`${String(data.kind).slice(0, 60)} is not a kind of message.`);
  }
}

/** What to do when the kernel's package is older or newer than this one. */
function mismatchSentence(protocol: number, theirs: unknown, version: string): string {
  const where =
    protocol < PROTOCOL
      ? "the kernel's environment and restart the kernel"
      : "JupyterLab's environment and reload the page";
  return (
    `JupyterLab has rf_notebook ${version} and this kernel ${String(theirs).slice(0, 40)}, ` +
    `and they do not understand each other; upgrade rf-notebook in ${where}.`
  );
}

/** This page is there and wants a snapshot. */
export function hello(version: string, greeting: Greeting): JsonObject {
  return {
    rf_notebook: PROTOCOL,
    version,
    kind: 'hello',
    every_seconds: greeting.everySeconds,
    colours: greeting.colours
  };
}

/** Something to be done, and answered under its id. */
export function command(version: string, id: string, name: string, given: JsonObject): JsonObject {
  return { rf_notebook: PROTOCOL, version, kind: 'command', id, name, arguments: given };
}

/** The state after a JSON merge patch (RFC 7396); what did not change is the same object as before. */
export function merged(before: JsonObject, patch: JsonObject): JsonObject {
  const result: Record<string, Json> = { ...before };
  for (const [key, value] of Object.entries(patch)) {
    if (key === '__proto__') {
      continue;
    }
    if (value === null) {
      Reflect.deleteProperty(result, key);
    } else if (isObject(value)) {
      const old = result[key];
      result[key] = merged(isObject(old) ? (old as JsonObject) : {}, value as JsonObject);
    } else {
      result[key] = value;
    }
  }
  return result;
}

function count(value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) {
    throw new ProtocolError('a message is numbered 0, 1, 2, ...');
  }
  return value;
}

function object(value: unknown): JsonObject {
  if (!isObject(value)) {
    throw new ProtocolError("a message's content is an object.");
  }
  return value as JsonObject;
}

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new ProtocolError('a text is missing in a message.');
  }
  return value;
}
