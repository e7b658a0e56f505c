import { expect, it } from 'vitest';
import fixture from '../fixtures/panel.json';
import { identityOf, isOlder, readPanel, sortedRuns, type SavedPanel } from './savedPanel';

function saved(): SavedPanel {
  const panel = readPanel(fixture);
  if (panel.kind !== 'saved') {
    throw new Error(JSON.stringify(panel));
  }
  return panel;
}

it('reads what the Python side writes', () => {
  const panel = saved();
  expect(panel.experiment).toBe('fake');
  expect(panel.runs.map(({ id }) => id)).toEqual([1, 2, 3]);
  expect(panel.curves.map(({ metric }) => metric)).toEqual(['eval_loss', 'loss']);
  expect(panel.curves[0]?.runs[0]?.samples.length).toBe(20);
  expect(identityOf(fixture)).toBe('0'.repeat(32));
});

it('reads charts and groups, which older notebooks do not have', () => {
  const panel = saved();
  expect(panel.charts).toEqual([0, 1]);
  expect(panel.groups.map(({ title, runs }) => [title, runs])).toEqual([
    ['learning_rate 1e-3 (1)', [1]],
    ['learning_rate 1e-4 (1)', [2]],
    ['learning_rate 1e-5 (1)', [3]]
  ]);
  expect(panel.groups[0]?.means.map(({ run, values }) => [run, values.length > 1])).toEqual([
    [1, true],
    [1, true]
  ]);
  const older: Record<string, unknown> = { ...fixture };
  delete older.charts;
  delete older.groups;
  expect(readPanel(older)).toMatchObject({ kind: 'saved', charts: [], groups: [] });
});

it('sorts by value, not by text', () => {
  const panel = saved();
  const column = panel.columns.indexOf('learning_rate');
  const rates = (descending: boolean): (string | undefined)[] =>
    sortedRuns(panel, column, descending).map((run) => run.cells[column]);
  expect(rates(false)).toEqual(['1e-5', '1e-4', '1e-3']);
  expect(rates(true)).toEqual(['1e-3', '1e-4', '1e-5']);
});

it('reads the output of a live panel', () => {
  const live = { version: 1, live: true, experiment: 'demo', model_id: 'abc' };
  expect(readPanel(live)).toEqual({ kind: 'live', experiment: 'demo', modelId: 'abc' });
});

const [run] = fixture.runs;
const [curves] = fixture.curves;
const [curve] = curves?.runs ?? [];
const big = Array(300_000).fill(1);

it.each([
  ['no object', null, 'no object'],
  ['a list', [1], 'no object'],
  ['a newer version', { ...fixture, version: 2 }, 'upgrade rf-notebook'],
  ['no version', { ...fixture, version: '<script>' }, 'version unknown'],
  ['no name', { ...fixture, experiment: {} }, 'name of its experiment'],
  ['columns that are none', { ...fixture, columns: 'abc' }, 'columns are no list'],
  ['a column that is none', { ...fixture, columns: [1] }, 'column has no name'],
  ['too many columns', { ...fixture, columns: Array(65).fill('x') }, 'more columns'],
  ['runs that are none', { ...fixture, runs: { length: 3 } }, 'runs are no list'],
  ['too many runs', { ...fixture, runs: Array(257).fill(run) }, 'more runs'],
  ['a run that is none', { ...fixture, runs: [null] }, 'run is no object'],
  ['a run with a wrong number', { ...fixture, runs: [{ ...run, id: '1' }] }, 'number of a run'],
  ['a run with a number beyond all', { ...fixture, runs: [{ ...run, id: 1e300 }] }, 'number of a run'],
  ['a run with too many cells', { ...fixture, runs: [{ ...run, cells: Array(64).fill('x') }] }, 'more cells'],
  ['a cell that is none', { ...fixture, runs: [{ ...run, cells: [{ toString: 1 }] }] }, 'cell holds no text'],
  ['groups that are none', { ...fixture, groups: [{ title: 1 }] }, 'means are no list'],
  ['charts that are none', { ...fixture, charts: ['0'] }, 'the number of a run is none'],
  ['curves that are none', { ...fixture, curves: {} }, 'metrics are no list'],
  [
    'a curve without values',
    { ...fixture, curves: [{ ...curves, runs: [{ id: 1, samples: [1] }] }] },
    'points are no list'
  ],
  [
    'a curve of texts',
    { ...fixture, curves: [{ ...curves, runs: [{ ...curve, values: Array(20).fill('x') }] }] },
    'not a number'
  ],
  [
    'a curve of two lengths',
    { ...fixture, curves: [{ ...curves, runs: [{ ...curve, values: [1] }] }] },
    'more places'
  ],
  [
    'a huge curve',
    { ...fixture, curves: [{ ...curves, runs: [{ id: 1, samples: big, values: big }] }] },
    'more points'
  ],
  [
    'a live panel without a widget',
    { version: 1, live: true, experiment: 'x', model_id: 3 },
    'widget is missing'
  ]
])('refuses %s in one sentence', (_words, data, expected) => {
  const panel = readPanel(data);
  expect(panel.kind).toBe('unreadable');
  expect(panel).toHaveProperty('sentence', expect.stringContaining(expected));
  expect((panel as { sentence: string }).sentence.length).toBeLessThan(300);
});

it('cuts texts that are too long', () => {
  const panel = readPanel({ ...fixture, experiment: 'A'.repeat(1_000_000) });
  expect(panel.kind === 'saved' && panel.experiment.length).toBe(300);
});

it.each([
  [{ identity: 'a', live: false, seq: 3 }, true],
  [{ identity: 'a', live: false, seq: 4 }, false],
  [{ identity: 'a', live: false, seq: 5 }, false],
  [{ identity: 'a', live: false }, true], // of a version that wrote no numbers
  [{ identity: 'b', live: false, seq: 3 }, false],
  [{ identity: 'a', live: true, seq: 3 }, false],
  [{ identity: 'a', live: false, seq: 'many' }, true],
  [null, false],
  ['a', false]
])('knows whether %j are older figures', (data, older) => {
  expect(isOlder(data, 'a', 4)).toBe(older);
});
