/** Which experiments are recorded beside a notebook? Asked of the file browser's service while no kernel can tell. */
import type { Contents } from '@jupyterlab/services';

const FOLDER = 'rf_experiments';
/** As rf_notebook/experiment.py has it; other folders are no experiments, and their names go into no cell. */
const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_ .+-]{0,99}$/u;

/** Names of the folders in the "rf_experiments" beside a notebook; none when there is no such folder. */
export async function recordedIn(contents: Contents.IManager, notebook: string): Promise<readonly string[]> {
  const folder = notebook.split('/').slice(0, -1).join('/');
  try {
    const beside = await entries(contents, folder);
    const records = beside.find((one) => one.name === FOLDER && one.type === 'directory');
    return records === undefined
      ? []
      : (await entries(contents, records.path))
          .filter((one) => one.type === 'directory' && isExperimentName(one.name))
          .map((one) => one.name);
  } catch {
    return []; // a folder that cannot be listed tells nothing
  }
}

/** Whether an experiment can be called so. */
export function isExperimentName(name: string): boolean {
  return NAME.test(name);
}

async function entries(contents: Contents.IManager, path: string): Promise<readonly Contents.IModel[]> {
  const { content } = await contents.get(path, { content: true });
  return Array.isArray(content) ? (content as readonly Contents.IModel[]) : [];
}
