import { expect, it } from 'vitest';
import { Badge } from './badge';
import { sourceDigest } from './digest';
import { fromMetadata, judge, toMetadata, type Cell, type Provenance } from './provenance';
import type { Experiment } from './experiments';

const SOURCES = ['%load_ext rf_notebook', 'grid = 1', 'experiment.run_fit(grid)', 'experiment.best()'];

function cells(sources: readonly string[], launching = 2): Cell[] {
  return sources.map((source, index) => ({ source, identities: index === launching ? ['id'] : [] }));
}

const PROVENANCE: Provenance = {
  experiment: 'demo',
  identity: 'id',
  spec: 'spec',
  sources: { ran: SOURCES.slice(0, 3).map(sourceDigest), launch: sourceDigest(SOURCES[2] ?? '') }
};

it.each([
  ['as it was run', SOURCES, 'reproducible'],
  ['with a later cell changed', [...SOURCES.slice(0, 3), 'experiment.figure()'], 'reproducible'],
  ['with an empty cell put in', ['', ...SOURCES], 'reproducible'],
  ['with line ends at a cell', [`${SOURCES[0] ?? ''}\n`, ...SOURCES.slice(1)], 'reproducible'],
  [
    'with the search changed',
    [SOURCES[0] ?? '', 'grid = 2', ...SOURCES.slice(2)],
    'code cell 2 is not as it was run'
  ],
  [
    'with the launch changed',
    [...SOURCES.slice(0, 2), 'run_fit(other)', SOURCES[3] ?? ''],
    '(code cell 3) was changed'
  ],
  ['with a cell put before the launch', ['seed = 3', ...SOURCES], 'code cell 1 is not as it was run']
])('judges a notebook %s', (_words, sources, expected) => {
  expect(judge(cells(sources), PROVENANCE, sourceDigest).words).toContain(expected);
});

it('judges a notebook whose launching cell is gone', () => {
  const verdict = judge(cells(['a', 'b'], 9), PROVENANCE, sourceDigest);
  expect(verdict).toEqual({
    kind: 'changed',
    words: 'changed since run: the cell that started demo is gone'
  });
});

it('comes back from the metadata as it went in', () => {
  expect(fromMetadata(JSON.parse(JSON.stringify(toMetadata(PROVENANCE))))).toEqual(PROVENANCE);
});

it.each([
  null,
  'x',
  {},
  { version: 2 },
  { version: 1, experiment: 'x'.repeat(300), identity: '', spec: '', launch: '', ran: [] },
  { version: 1, experiment: 'x', identity: '', spec: '', launch: '', ran: 'abc' },
  { version: 1, experiment: 'x', identity: '', spec: '', launch: '', ran: [1] },
  { version: 1, experiment: 'x', identity: '', spec: '', launch: '', ran: Array(501).fill('a') }
])('reads nothing of metadata %#', (metadata) => {
  expect(fromMetadata(metadata)).toBeNull();
});

it('takes the living experiment over the remembered one, and neither for a notebook that has none', () => {
  let remembered: Provenance | null = null;
  let shown = cells(SOURCES);
  const badge = new Badge({ cells: () => shown, remembered: () => remembered });
  badge.look(null, sourceDigest);
  expect(badge.verdict).toBeNull();
  const living = { ...PROVENANCE, name: 'demo' } as unknown as Experiment;
  badge.look(living, sourceDigest);
  expect(badge.verdict?.kind).toBe('reproducible');
  expect(badge.provenance).toEqual(PROVENANCE);
  remembered = badge.provenance;
  shown = cells([SOURCES[0] ?? '', 'grid = 3', ...SOURCES.slice(2)]);
  badge.look(null, sourceDigest);
  expect(badge.verdict?.kind).toBe('changed');
});

it('does not claim an experiment of another notebook on the same kernel', () => {
  const badge = new Badge({ cells: () => cells(['1 + 1'], 9), remembered: () => null });
  badge.look({ ...PROVENANCE, name: 'demo' } as unknown as Experiment, sourceDigest);
  expect(badge.provenance).toBeNull();
});
