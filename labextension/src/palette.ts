/** Which colour is a run's? As in rf_notebook/views/palette.py; both pass fixtures/protocol.json. */

/** Okabe and Ito's colours without black and yellow, and two of like lightness. Source: jfly.uni-koeln.de/color. */
export const COLOURS: readonly string[] = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#cc79a7',
  '#56b4e9',
  '#d55e00',
  '#8c7ae6',
  '#7f8c8d'
];
/** From the ninth run on, colours come again with another stroke: lengths of lines and gaps in pixels. */
const DASHES: readonly (readonly number[])[] = [
  [],
  [8, 3],
  [2, 3],
  [8, 3, 2, 3],
  [16, 4],
  [16, 4, 2, 4],
  [8, 3, 2, 3, 2, 3],
  [4, 8]
];

let chosen = COLOURS;

/** Use other colours from now on; none for the usual. */
export function choose(colours: readonly string[]): void {
  chosen = colours.length > 0 ? colours : COLOURS;
}

/** A CSS colour. */
export function colour(run: number): string {
  return chosen[(run - 1) % chosen.length] ?? '#7f8c8d';
}

/** A stroke. */
export function dash(run: number): readonly number[] {
  return DASHES[Math.floor((run - 1) / chosen.length) % DASHES.length] ?? [];
}
