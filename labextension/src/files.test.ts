import type { Contents } from '@jupyterlab/services';
import { expect, it } from 'vitest';
import { isExperimentName, recordedIn } from './files';

type Entry = readonly [name: string, type: string];

function contents(tree: Readonly<Record<string, readonly Entry[]>>): Contents.IManager {
  const get = (path: string): Promise<object> => {
    const found = tree[path];
    if (found === undefined) {
      return Promise.reject(new Error('404'));
    }
    const content = found.map(([name, type]) => ({
      name,
      type,
      path: path === '' ? name : `${path}/${name}`
    }));
    return Promise.resolve({ content });
  };
  return { get } as unknown as Contents.IManager;
}

it('lists the experiments beside a notebook', async () => {
  const tree: Record<string, Entry[]> = {
    'a/b': [['rf_experiments', 'directory']],
    'a/b/rf_experiments': [
      ['first', 'directory'],
      ['notes.txt', 'file'],
      ['x"\nimport os', 'directory']
    ]
  };
  expect(await recordedIn(contents(tree), 'a/b/notebook.ipynb')).toEqual(['first']);
});

it('lists nothing where there is no such folder, or none that can be listed', async () => {
  expect(await recordedIn(contents({ '': [] }), 'notebook.ipynb')).toEqual([]);
  expect(await recordedIn(contents({}), 'notebook.ipynb')).toEqual([]);
});

it.each(['first', 'my experiment', 'größer_1.5+x', '_'])('takes %j for a name', (name) => {
  expect(isExperimentName(name)).toBe(true);
});

it.each([
  '',
  '-x',
  'a"b',
  'x\nimport os',
  'x\rimport os',
  '{os}',
  '$HOME',
  '../up',
  'a'.repeat(101),
  'x\u2028y',
  'x\n'
])('takes %j for none, so that it gets into no cell', (name) => {
  expect(isExperimentName(name)).toBe(false);
});
