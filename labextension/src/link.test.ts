import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Link } from './link';
import type { JsonObject } from './protocol';

const GREETING = { everySeconds: 1, colours: [] };
let sent: JsonObject[] = [];
let link: Link;

function say(kind: string, content: JsonObject, protocol = 1): void {
  link.receive({ rf_notebook: protocol, version: '0.1.0', kind, ...content });
}

function state(name: string, progress: number): JsonObject {
  return {
    current: '/x',
    experiments: { '/x': { name, progress, runs: { '1': { id: 1, state: 'running' } } } }
  };
}

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  link = new Link({ send: (data) => sent.push(data) }, '0.1.0', GREETING);
});
afterEach(() => {
  vi.useRealTimers();
});

it('greets whoever announces itself, and shows the snapshot', () => {
  say('announce', {});
  expect(sent.map(({ kind }) => kind)).toEqual(['hello']);
  say('snapshot', { seq: 4, state: state('demo', 0.25) });
  expect(link.state?.experiments[0]?.name).toBe('demo');
  expect(link.state?.experiments[0]?.runs.map((run) => run.id)).toEqual([1]);
});

it('follows patches in their order, and passes over those it has seen', () => {
  say('snapshot', { seq: 4, state: state('demo', 0.25) });
  say('patch', { seq: 5, changes: { experiments: { '/x': { progress: 0.5 } } } });
  say('patch', { seq: 5, changes: { experiments: { '/x': { progress: 0.1 } } } });
  expect(link.state?.experiments[0]?.progress).toBe(0.5);
  expect(sent).toEqual([]);
});

it('asks once for everything when a patch was missed, and goes on from there', () => {
  say('snapshot', { seq: 4, state: state('demo', 0.25) });
  say('patch', { seq: 6, changes: { experiments: { '/x': { progress: 0.9 } } } });
  say('patch', { seq: 7, changes: { experiments: { '/x': { progress: 0.95 } } } });
  expect(sent.map(({ kind }) => kind)).toEqual(['hello']);
  expect(link.state?.experiments[0]?.progress).toBe(0.25);
  say('snapshot', { seq: 7, state: state('demo', 0.95) });
  expect(link.state?.experiments[0]?.progress).toBe(0.95);
});

it('asks again when the answer to a missed patch was lost as well', () => {
  say('snapshot', { seq: 0, state: state('demo', 0) });
  for (let seq = 2; seq < 30; seq++) {
    say('patch', { seq, changes: {} });
  }
  expect(sent.length).toBeGreaterThan(1);
  expect(sent.length).toBeLessThan(6);
});

it('resolves a command with its answer and passes over answers to other pages', async () => {
  const asked = link.command('stop', { runs: [1] });
  const { id } = sent[0] as { id: string };
  say('answer', { id: 'somebody-else', value: {} });
  say('answer', { id, value: { ok: true } });
  await expect(asked).resolves.toEqual({ ok: true });
});

it("rejects a command with the kernel's own sentence", async () => {
  const asked = link.command('stop', { runs: [1] });
  say('answer', { id: (sent[0] as { id: string }).id, error: 'cannot stop run 1: it is stopped.' });
  await expect(asked).rejects.toThrow('cannot stop run 1: it is stopped.');
});

it('does not wait forever', async () => {
  const asked = expect(link.command('stop', {})).rejects.toThrow('did not answer "stop" within 60 s');
  vi.advanceTimersByTime(61_000);
  await asked;
});

it('forgets everything when the kernel goes, and says so to who waits', async () => {
  say('snapshot', { seq: 0, state: state('demo', 0) });
  const asked = expect(link.command('stop', {})).rejects.toThrow('restarted or is gone');
  link.close();
  await asked;
  expect(link.state).toBeNull();
});

it.each([
  [2, 'upgrade rf-notebook in JupyterLab'],
  [0, 'upgrade rf-notebook in the kernel']
])('tells who speaks protocol %i which side to upgrade', (protocol, words) => {
  say('snapshot', { seq: 0, state: {} }, protocol);
  expect(link.problem).toContain(words);
  expect(link.state).toBeNull();
});

it.each([null, 3, 'x', [], { rf_notebook: 1 }, { rf_notebook: 1, kind: 'patch', seq: -1, changes: {} }])(
  'passes over %j',
  (data) => {
    expect(() => {
      link.receive(data);
    }).not.toThrow();
    expect(link.state).toBeNull();
  }
);
