import { expect, it } from 'vitest';
import { readState } from './experiments';
import { newsBetween } from './news';
import type { JsonObject } from './protocol';

function state(standing: string, runs: JsonObject): ReturnType<typeof readState> {
  return readState({
    experiments: { '/x': { name: 'demo', standing, words: 'all runs are over', metric: 'loss', runs } }
  });
}

it('tells a run that failed, once', () => {
  const before = state('training', { '1': { id: 1, state: 'running' } });
  const after = state('training', { '1': { id: 1, state: 'failed', error: 'out of memory' } });
  expect(newsBetween(before, after)).toEqual([{ kind: 'failed', text: 'demo: run 1 failed: out of memory' }]);
  expect(newsBetween(after, after)).toEqual([]);
});

it('tells the end, with the best run', () => {
  const before = state('training', {});
  const after = state('idle', { '2': { id: 2, state: 'completed', best: true } });
  expect(newsBetween(before, after)).toEqual([
    { kind: 'ended', text: 'demo: all runs are over; best loss: run 2' }
  ]);
});

it('tells a run that diverged, once, and nothing green when no run is left', () => {
  const before = state('training', { '1': { id: 1, state: 'running' } });
  const diverged = { id: 1, state: 'diverged', word: 'diverged at step 12' };
  const after = state('training', { '1': diverged });
  const told = { kind: 'failed', text: 'demo: run 1 diverged at step 12' };
  expect(newsBetween(before, after)).toEqual([told]);
  expect(newsBetween(after, state('failed', { '1': diverged }))).toEqual([
    { kind: 'failed', text: 'demo: all runs are over' }
  ]);
});

it('tells nothing of what lies behind, and nothing of a pause', () => {
  const failed = state('idle', { '1': { id: 1, state: 'failed' } });
  expect(newsBetween(null, failed)).toEqual([]);
  expect(newsBetween(state('training', {}), state('paused', {}))).toEqual([]);
});
