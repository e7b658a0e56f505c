/** What can a person set? The settings of schema/plugin.json, read with their defaults. */
import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import type { Greeting } from './protocol';

export interface Settings extends Greeting {
  /** Where the whole panel opens. */
  readonly panelOpens: 'sidebar' | 'tab';
  readonly notifications: boolean;
}

export const DEFAULTS: Settings = { everySeconds: 2, colours: [], panelOpens: 'tab', notifications: true };
const COLOUR = /^#[0-9a-fA-F]{6}$/;

/** The settings as they are. */
export function readSettings(found: ISettingRegistry.ISettings | null): Settings {
  if (found === null) {
    return DEFAULTS;
  }
  const seconds = found.get('updateSeconds').composite;
  const colours = found.get('colours').composite;
  return {
    everySeconds: typeof seconds === 'number' ? Math.min(Math.max(seconds, 0.2), 60) : DEFAULTS.everySeconds,
    colours: Array.isArray(colours)
      ? colours.filter((one): one is string => typeof one === 'string' && COLOUR.test(one)).slice(0, 32)
      : [],
    panelOpens: found.get('panelOpens').composite === 'sidebar' ? 'sidebar' : 'tab',
    notifications: found.get('notifications').composite !== false
  };
}
