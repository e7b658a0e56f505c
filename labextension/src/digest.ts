/** The digest of a cell's text, as rf_notebook/jupyterlab/provenance.py makes it; loaded when the first notebook needs it. */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';

const MOST_REMEMBERED = 2000;
const remembered = new Map<string, string>();

/** The sha256, without the line ends after the text, which IPython does not keep. */
export function sourceDigest(source: string): string {
  let found = remembered.get(source);
  if (found === undefined) {
    if (remembered.size >= MOST_REMEMBERED) {
      remembered.clear();
    }
    found = bytesToHex(sha256(utf8ToBytes(source.replace(/\n+$/, ''))));
    remembered.set(source, found);
  }
  return found;
}
