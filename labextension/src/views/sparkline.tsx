/** A run's curve in a few pixels; all runs of an experiment share one scale, so that they can be compared. */
import * as React from 'react';

const WIDTH = 56;
const HEIGHT = 18;

export interface Scale {
  readonly low: number;
  readonly high: number;
}

/** The scale that holds all of the curves. */
export function scaleOf(curves: readonly (readonly number[])[]): Scale {
  let low = Infinity;
  let high = -Infinity;
  for (const curve of curves) {
    for (const value of curve) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return { low, high };
}

interface Props {
  readonly values: readonly number[];
  readonly low: number;
  readonly high: number;
  readonly colour: string;
}

export const Sparkline = React.memo(function Sparkline({
  values,
  low,
  high,
  colour
}: Props): React.ReactElement {
  const span = high > low ? high - low : 1;
  const places = values.map((value, index) => {
    const x = 1 + (index / Math.max(values.length - 1, 1)) * (WIDTH - 2);
    const y = HEIGHT - 2 - ((value - low) / span) * (HEIGHT - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return (
    <svg className="rfl-spark" width={WIDTH} height={HEIGHT} aria-hidden="true">
      {places.length > 1 && (
        <polyline points={places.join(' ')} fill="none" stroke={colour} strokeWidth={1.5} />
      )}
    </svg>
  );
});
