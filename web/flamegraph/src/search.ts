// Which frames a search finds, and what they make together.
import type { Data } from "./data";
import type { Store } from "./store";

export interface Found {
  /** For each frame of the data. */
  frames: Uint8Array;
  /** Number of them. */
  count: number;
  /** The search is no valid expression. */
  wrong: boolean;
}

/** Frames whose function, file, or file:line contains `text`, whatever its case; a text between
 * slashes is a regular expression. */
export function find(data: Data, text: string): Found {
  const { function: functions, file, line, source } = data.frames;
  const frames = new Uint8Array(functions.length);
  const test = tester(text);
  if (!test) return { frames, count: 0, wrong: true };
  // Texts once each: frames share them.
  const hits = new Int8Array(data.texts.length).fill(-1);
  const hit = (at: number) => {
    if (hits[at] === -1) hits[at] = test(data.texts[at]!) ? 1 : 0;
    return hits[at] === 1;
  };
  const withLine = /:\d+$/.test(text);
  let count = 0;
  for (let i = 0; i < frames.length; i++) {
    const found =
      hit(functions[i]!) ||
      hit(file[i]!) ||
      (source.length > 0 && hit(source[i]!)) ||
      (withLine && `${data.texts[file[i]!]}:${line[i]}`.endsWith(text));
    if (found) (count++, (frames[i] = 1));
  }
  return { frames, count, wrong: false };
}

function tester(text: string): ((text: string) => boolean) | null {
  const expression = /^\/(.+)\/$/.exec(text);
  if (expression) {
    try {
      const pattern = new RegExp(expression[1]!, "iu");
      return (text) => pattern.test(text);
    } catch {
      return null;
    }
  }
  const lower = text.toLowerCase();
  return (text) => text.toLowerCase().includes(lower);
}

/** The width of all paths that lead through a found frame, each once. */
export function sum(data: Data, store: Store, found: Found): number {
  const { parent, frame } = data.nodes;
  const through = new Uint8Array(parent.length);
  for (let i = 1; i < through.length; i++) through[i] = through[parent[i]!]! | found.frames[frame[i]!]!;
  let sum = 0;
  for (let i = 0; i < store.count; i++) if (through[store.nodes[i]!]) sum += store.value(i, i + 1);
  return sum;
}
