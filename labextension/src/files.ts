/** Which experiments are recorded beside a notebook? Asked of the file browser's service while no kernel can tell. */
import type { Contents } from '@jupyterlab/services';

const FOLDER = 'rf_experiments';

/** Names of the folders in the "rf_experiments" beside a notebook; none when there is no such folder. */
export async function recordedIn(contents: Contents.IManager, notebook: string): Promise<readonly string[]> {
  const folder = notebook.split('/').slice(0, -1).join('/');
  try {
    const beside = await entries(contents, folder);
    const records = beside.find((one) => one.name === FOLDER && one.type === 'directory');
    return records === undefined
      ? []
      : (await entries(contents, records.path))
          .filter((one) => one.type === 'directory')
          .map((one) => one.name);
  } catch {
    return []; // a folder that cannot be listed tells nothing
  }
}

async function entries(contents: Contents.IManager, path: string): Promise<readonly Contents.IModel[]> {
  const { content } = await contents.get(path, { content: true });
  return Array.isArray(content) ? (content as readonly Contents.IModel[]) : [];
}
