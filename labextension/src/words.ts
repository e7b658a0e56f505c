/** How are figures and durations written? As in rf_notebook/views/words.py; both pass fixtures/protocol.json. */

/** State as a sign, so that it is not told by colour alone. */
export const ICONS: Readonly<Record<string, string>> = {
  queued: '○',
  running: '●',
  stopped: '■',
  completed: '✓',
  failed: '▲',
  diverged: '△',
  deleted: '✕'
};

/** Four significant digits; "–" for nothing. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return '–';
  }
  if (!Number.isFinite(value)) {
    return Number.isNaN(value) ? 'NaN' : value > 0 ? '∞' : '-∞';
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e4)) {
    const [mantissa = '', exponent = ''] = value.toExponential(3).split('e');
    return `${String(Number(mantissa))}e${String(Number(exponent))}`;
  }
  return String(Number(value.toPrecision(4)));
}

/** A time in words, such as 4 m 10 s; "–" for nothing. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) {
    return '–';
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${String(whole)} s`;
  }
  if (whole < 3600) {
    return `${String(Math.floor(whole / 60))} m ${String(whole % 60)} s`;
  }
  return `${String(Math.floor(whole / 3600))} h ${String(Math.floor((whole % 3600) / 60))} m`;
}

/** Between 0 and 1 as a percentage. */
export function percent(share: number): string {
  return `${String(Math.floor(share * 100))} %`;
}
