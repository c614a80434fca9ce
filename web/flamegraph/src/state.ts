// What is shown, and the same as the end of the page's address, so that a view can be linked to.
import type { Header } from "./data";
import type { Unit, Wide } from "./store";

export type View = "callers" | "lines";
export type Growth = "down" | "up";
export type ThemeChoice = "system" | "light" | "dark";

export interface State {
  weight: string;
  unit: Unit;
  /** From the outermost caller inwards, or from the line that asked outwards. */
  view: View;
  growth: Growth;
  /** Threads are the first level. */
  split: boolean;
  /** For each thread of the page. */
  threads: Uint8Array;
  wide: Wide;
  zoom: string[];
  search: string;
  /** Points of the timeline, both included; null: no interval is chosen. */
  interval: [number, number] | null;
  theme: ThemeChoice;
}

export function initial(header: Header): State {
  return {
    weight: header.weight,
    unit: "bytes",
    view: "callers",
    growth: "down",
    split: false,
    threads: new Uint8Array(header.threads.length).fill(1),
    wide: "larger",
    zoom: [],
    search: "",
    interval: null,
    theme: "system",
  };
}

/** What differs from the start, as `#name=value&…`. */
export function toHash(state: State, header: Header): string {
  const start = initial(header);
  const parts = new URLSearchParams();
  for (const name of ["weight", "unit", "view", "growth", "wide", "search", "theme"] as const) {
    if (state[name] !== start[name]) parts.set(name, state[name]);
  }
  if (state.split) parts.set("split", "1");
  const hidden = [...state.threads.keys()].filter((t) => !state.threads[t] && !header.threads[t]!.others);
  if (hidden.length > 0) parts.set("without", hidden.join("."));
  if (state.zoom.length > 0) parts.set("zoom", state.zoom.join("."));
  if (state.interval) parts.set("interval", state.interval.join("."));
  const text = parts.toString();
  return text ? `#${text}` : "";
}

/** The state of an address; what it doesn't say, or says wrongly, is as at the start. */
export function fromHash(hash: string, header: Header): State {
  const state = initial(header);
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const word = <T extends string>(name: string, known: readonly T[], otherwise: T): T =>
    known.find((k) => k === parts.get(name)) ?? otherwise;
  state.weight = word("weight", header.weights.map(([name]) => name), state.weight);
  state.unit = word("unit", ["bytes", "blocks"], state.unit);
  state.view = word("view", ["callers", "lines"], state.view);
  state.growth = word("growth", ["down", "up"], state.growth);
  state.wide = word("wide", ["larger", "change"], state.wide);
  state.theme = word("theme", ["system", "light", "dark"], state.theme);
  state.split = parts.get("split") === "1";
  state.search = parts.get("search") ?? "";
  state.zoom = (parts.get("zoom") ?? "").split(".").filter((key) => key !== "");
  for (const t of (parts.get("without") ?? "").split(".")) {
    if (/^\d+$/.test(t) && Number(t) < state.threads.length) state.threads[Number(t)] = 0;
  }
  const interval = /^(\d+)\.(\d+)$/.exec(parts.get("interval") ?? "");
  if (interval && !header.diff) state.interval = [Number(interval[1]), Number(interval[2])];
  hideOthers(state, header);
  return state;
}

/** What the timeline doesn't tell apart belongs to all threads of a process: it is shown only if
 * all of them are. */
export function hideOthers(state: State, header: Header): void {
  const partly = new Set<number>();
  header.threads.forEach((t, i) => {
    if (!t.others && !state.threads[i]) partly.add(t.process);
  });
  header.threads.forEach((t, i) => {
    if (t.others) state.threads[i] = partly.has(t.process) ? 0 : 1;
  });
}
