/** What is worth interrupting a person for? A run that failed or diverged, and an experiment that came to its end. */
import type { KernelState } from './experiments';

export interface News {
  readonly kind: 'failed' | 'ended';
  readonly text: string;
}

const OVER = ['idle', 'ended', 'failed'];
/** States of runs that gave nothing. */
const LOST = ['failed', 'diverged'];
const LONGEST = 200;

/**
 * What happened between two looks at a kernel.
 *
 * @param before Null at the first look, which tells nothing: what lies behind is no news.
 */
export function newsBetween(before: KernelState | null, after: KernelState): readonly News[] {
  const news: News[] = [];
  for (const now of after.experiments) {
    const then = before?.experiments.find((one) => one.key === now.key);
    if (then === undefined) {
      continue;
    }
    const lost = new Set(then.runs.filter((run) => LOST.includes(run.state)).map((run) => run.id));
    for (const run of now.runs) {
      if (LOST.includes(run.state) && !lost.has(run.id)) {
        const what = run.state === 'failed' ? `failed: ${run.error ?? ''}` : run.word;
        const text = `${now.name}: run ${String(run.id)} ${what}`;
        news.push({ kind: 'failed', text: text.slice(0, LONGEST) });
      }
    }
    if (OVER.includes(now.standing) && then.standing === 'training') {
      const best = now.runs.find((run) => run.best);
      const words = best === undefined ? '' : `; best ${now.metric ?? ''}: run ${String(best.id)}`;
      const isLost = now.runs.length > 0 && now.runs.every((run) => LOST.includes(run.state));
      const kind = isLost ? 'failed' : 'ended';
      news.push({ kind, text: `${now.name}: ${now.words}${words}`.slice(0, LONGEST) });
    }
  }
  return news;
}
