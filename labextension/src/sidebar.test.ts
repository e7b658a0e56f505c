import { Signal } from '@lumino/signaling';
import { beforeEach, expect, it } from 'vitest';
import { inPlace } from './experiments';
import { Link } from './link';
import type { JsonObject } from './protocol';
import { Sidebar, type Links } from './sidebar';

class FakeLinks implements Links {
  readonly changed: Signal<Links, void> = new Signal<Links, void>(this);
  readonly sent: { kernel: string; data: JsonObject }[] = [];
  private readonly _links = new Map<string, Link>();

  add(kernel: string): Link {
    const wire = { send: (data: JsonObject): void => void this.sent.push({ kernel, data }) };
    const link = new Link(wire, '0.1.0', { everySeconds: 1, colours: [] });
    link.changed.connect(() => {
      this.changed.emit();
    });
    this._links.set(kernel, link);
    return link;
  }

  remove(kernel: string): void {
    this._links.delete(kernel);
    this.changed.emit();
  }

  link(kernel: string | null): Link | null {
    return kernel === null ? null : (this._links.get(kernel) ?? null);
  }

  answer(error?: string, value: JsonObject = {}): void {
    const last = this.sent.at(-1);
    const id = last?.data.id ?? '';
    this.link(last?.kernel ?? '')?.receive({
      rf_notebook: 1,
      version: '0.1.0',
      kind: 'answer',
      id,
      ...(error === undefined ? { value } : { error })
    });
  }
}

let links: FakeLinks;
let model: Sidebar;

function run(id: number, value: number | null, can: readonly string[]): JsonObject {
  return { id, state: 'running', can, ...(value === null ? {} : { value }) };
}

function tell(link: Link, key: string, runs: readonly JsonObject[], more: JsonObject = {}): void {
  const experiment = {
    name: key,
    direction: 'min',
    is_open: true,
    runs: Object.fromEntries(runs.map((one) => [String(one.id), one])),
    ...more
  };
  const state = {
    current: key,
    experiments: { [key]: experiment },
    recorded: { old: { standing: 'finished', runs: 2, words: '28 Nov · 1 MB' } }
  };
  link.receive({ rf_notebook: 1, version: '0.1.0', kind: 'snapshot', seq: 0, state });
}

beforeEach(() => {
  links = new FakeLinks();
  model = new Sidebar(links);
});

it('shows nothing without a notebook', () => {
  expect(model.subject).toBeNull();
  expect(model.groups).toEqual([]);
});

it('follows the notebook that is used: two experiments in two kernels do not mix', async () => {
  tell(links.add('k1'), 'one', [run(1, 2, ['stop'])]);
  tell(links.add('k2'), 'two', [run(1, 3, ['stop'])]);
  const notebooks = [
    { path: 'a.ipynb', kernel: 'k1' },
    { path: 'b.ipynb', kernel: 'k2' }
  ];
  model.setNotebooks(notebooks, notebooks[0] ?? null);
  expect(model.subject?.experiment.name).toBe('one');
  model.setNotebooks(notebooks, notebooks[1] ?? null);
  expect(model.subject?.experiment.name).toBe('two');
  const asked = model.operate('stop', [1]);
  expect(links.sent.at(-1)).toMatchObject({
    kernel: 'k2',
    data: { arguments: { experiment: 'two', runs: [1] } }
  });
  links.answer();
  expect(await asked).toBe(true);
});

it('shares a kernel between two notebooks', () => {
  tell(links.add('k'), 'one', []);
  const notebooks = [
    { path: 'a.ipynb', kernel: 'k' },
    { path: 'b.ipynb', kernel: 'k' }
  ];
  model.setNotebooks(notebooks, notebooks[1] ?? null);
  expect(model.groups.map((group) => group.notebooks)).toEqual([['a.ipynb', 'b.ipynb']]);
  expect(model.subject?.experiment.name).toBe('one');
});

it('acts on a chosen experiment until the notebook changes', () => {
  tell(links.add('k1'), 'one', []);
  tell(links.add('k2'), 'two', []);
  const notebooks = [
    { path: 'a.ipynb', kernel: 'k1' },
    { path: 'b.ipynb', kernel: 'k2' }
  ];
  model.setNotebooks(notebooks, notebooks[0] ?? null);
  model.choose('k2', 'two');
  expect(model.subject?.experiment.name).toBe('two');
  model.setNotebooks(notebooks, notebooks[1] ?? null);
  model.setNotebooks(notebooks, notebooks[0] ?? null);
  expect(model.subject?.experiment.name).toBe('one');
});

it('acts on those of the selected runs that may', () => {
  tell(links.add('k'), 'one', [run(1, 1, ['stop']), run(2, 1, ['resume']), run(3, 1, ['stop'])]);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  for (const id of [1, 2, 9]) {
    model.toggle(id);
  }
  expect(model.selected).toEqual([1, 2]);
  expect(model.allowed('stop')).toEqual([1]);
  expect(model.allowed('resume')).toEqual([2]);
});

it('orders by run, or the best first with the valueless last', () => {
  tell(links.add('k'), 'one', [run(1, 3, []), run(2, null, []), run(3, 1, [])]);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  expect(model.runs.map(({ id }) => id)).toEqual([1, 2, 3]);
  model.order = 'metric';
  expect(model.runs.map(({ id }) => id)).toEqual([3, 1, 2]);
});

it('leaves runs in the order in which they are seen', () => {
  tell(links.add('k'), 'one', [run(1, 3, []), run(2, 2, []), run(3, 1, []), run(4, 0, [])]);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  model.order = 'metric';
  expect(inPlace(model.runs, [1, 3, 9, 2]).map(({ id }) => id)).toEqual([1, 3, 2, 4]);
});

it("tells the kernel's refusal where it was asked", async () => {
  tell(links.add('k'), 'one', [run(1, 1, ['stop'])]);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  const asked = model.operate('stop', [1]);
  expect(model.message).toEqual({ kind: 'waiting', text: 'stop …' });
  links.answer('cannot stop run 1: it is stopped.');
  expect(await asked).toBe(false);
  expect(model.message).toEqual({ kind: 'refused', text: 'cannot stop run 1: it is stopped.' });
});

it('gives the widget that the kernel names', async () => {
  tell(links.add('k'), 'one', [run(1, 1, ['clone'])]);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  const asked = model.cloneModel(1, true);
  expect(links.sent.at(-1)?.data).toMatchObject({ name: 'clone', arguments: { runs: [1], warm: true } });
  links.answer(undefined, { model_id: 'abc' });
  expect(await asked).toBe('abc');
});

it('pauses what trains and resumes what is paused', () => {
  const link = links.add('k');
  tell(link, 'one', []);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  void model.togglePause();
  expect(links.sent.at(-1)?.data.name).toBe('pause');
  tell(link, 'one', [], { paused: true });
  void model.togglePause();
  expect(links.sent.at(-1)?.data.name).toBe('go on');
});

it('lists what is on disk: by the kernel, or by names while none speaks', async () => {
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  model.setFiles(['older']);
  expect(model.recorded.map(({ name }) => name)).toEqual(['older']);
  expect(await model.reopen('older')).toBe(false);
  tell(links.add('k'), 'one', []);
  links.changed.emit();
  expect(model.recorded).toEqual([{ name: 'old', standing: 'finished', runs: 2, words: '28 Nov · 1 MB' }]);
  void model.reopen('old');
  expect(links.sent.at(-1)?.data).toMatchObject({ name: 'open', arguments: { name: 'old' } });
});

it('removes what is on disk through a kernel, and says why not where none speaks', async () => {
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  expect(await model.remove('old')).toBe(false);
  expect(model.message?.kind).toBe('refused');
  tell(links.add('k'), 'one', []);
  links.changed.emit();
  const asked = model.remove('old');
  expect(links.sent.at(-1)?.data).toMatchObject({ name: 'remove', arguments: { name: 'old' } });
  links.answer();
  expect(await asked).toBe(true);
});

it('clears when the kernel goes', () => {
  tell(links.add('k'), 'one', []);
  model.setNotebooks([{ path: 'a.ipynb', kernel: 'k' }], { path: 'a.ipynb', kernel: 'k' });
  links.remove('k');
  expect(model.subject).toBeNull();
});
