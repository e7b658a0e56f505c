/** The extension's icon: curves that fall. */
import { LabIcon } from '@jupyterlab/ui-components';

export const curvesIcon = new LabIcon({
  name: 'rf-notebook:curves',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">' +
    '<g class="jp-icon3" fill="none" stroke="#616161" stroke-width="2" stroke-linecap="round">' +
    '<path d="M3 3v18h18"/><path d="M6 5c2 9 6 11 14 12"/><path d="M6 10c3 3 7 3 14 3"/></g></svg>'
});
