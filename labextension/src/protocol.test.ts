import { describe, expect, it } from 'vitest';
import fixtures from '../fixtures/protocol.json';
import { sourceDigest } from './digest';
import { colour, dash } from './palette';
import { command, hello, merged, PROTOCOL, ProtocolMismatch, readMessage, type JsonObject } from './protocol';
import { duration, number } from './words';

describe('the fixtures that the Python side passes too', () => {
  it('speak the same protocol', () => {
    expect(PROTOCOL).toBe(fixtures.protocol);
  });

  it.each(fixtures.patches)('merges %j', ({ before, after, patch }) => {
    expect(merged(before as unknown as JsonObject, patch as unknown as JsonObject)).toEqual(after);
  });

  it.each(fixtures.from_kernel)(
    'reads %j',
    ({ message, ok, mismatch }: (typeof fixtures.from_kernel)[number]) => {
      if (mismatch === true) {
        expect(() => readMessage(message, '0.1.0')).toThrow(ProtocolMismatch);
        expect(() => readMessage(message, '0.1.0')).toThrow(/upgrade rf-notebook in/);
      } else if (ok === true) {
        expect(readMessage(message, '0.1.0').kind).toBe((message as { kind: string }).kind);
      } else {
        expect(() => readMessage(message, '0.1.0')).toThrow();
      }
    }
  );

  it('say what the kernel reads', () => {
    const known = fixtures.from_page.map(({ message }) => message);
    expect(known).toContainEqual(hello('0.1.0', { everySeconds: 2, colours: ['#0072b2', '#E69F00'] }));
    expect(known).toContainEqual(command('0.1.0', 'c1', 'stop', { experiment: '/x/demo', runs: [1] }));
  });

  it.each(fixtures.sources)('digests %j', ({ source, digest }) => {
    expect(sourceDigest(source)).toBe(digest);
  });

  it.each(fixtures.numbers)('writes %j', ({ value, text }) => {
    expect(number(value)).toBe(text);
  });

  it.each(fixtures.durations)('writes %j', ({ seconds, text }) => {
    expect(duration(seconds)).toBe(text);
  });

  it.each(fixtures.colours)('colours %j', (expected) => {
    expect({ run: expected.run, colour: colour(expected.run), dash: dash(expected.run) }).toEqual(expected);
  });
});

it('keeps what a patch does not touch as the same object', () => {
  const before = { runs: { '1': { state: 'running' }, '2': { state: 'queued' } } };
  const after = merged(before, { runs: { '1': { state: 'stopped' } } }) as typeof before;
  expect(after.runs['2']).toBe(before.runs['2']);
  expect(after.runs['1']).not.toBe(before.runs['1']);
});

it('leaves the prototype alone', () => {
  const patch = JSON.parse('{"__proto__": {"polluted": true}}') as JsonObject;
  const after = merged({}, patch);
  expect(Object.getPrototypeOf(after)).toBe(Object.prototype);
  expect('polluted' in after).toBe(false);
});
