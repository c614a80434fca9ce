// Colours: the same for the same package or file in every page.
import { NATIVE, NO_CODE, type Data } from "./data";
import type { Sums, Unit } from "./store";

/** Colours of the theme that the canvas needs. */
export interface Theme {
  dark: boolean;
  text: string;
  dim: string;
  merged: string;
  root: string;
  focus: string;
  match: string;
  matchText: string;
  background: string;
  line: string;
}

export const LIGHT: Theme = {
  dark: false,
  text: "#1a1a1a",
  dim: "#e9e9ec",
  merged: "#b9bac2",
  root: "#d5d8df",
  focus: "#0b57d0",
  match: "#8b1a8b",
  matchText: "#ffffff",
  background: "#ffffff",
  line: "#d0d2d8",
};

export const DARK: Theme = {
  dark: true,
  text: "#f2f2f2",
  dim: "#2a2c31",
  merged: "#5a5d66",
  root: "#3b3f48",
  focus: "#8ab4f8",
  match: "#f0a6f0",
  matchText: "#1a1a1a",
  background: "#16181d",
  line: "#3a3d45",
};

/** The package or file that a file's path belongs to: what gives a frame its colour. */
export function module(file: string, kind: number): string {
  if (kind === NATIVE) return file.slice(file.lastIndexOf("/") + 1).replace(/\.so.*$/, "");
  const installed = /[/\\](?:site|dist)-packages[/\\]([^/\\]+)/.exec(file);
  if (installed) return installed[1]!.replace(/\.py$/, "");
  const library = /[/\\]lib(?:64)?[/\\]python[\d.]+t?[/\\]([^/\\]+)/.exec(file) ?? /^<frozen ([^.>]+)/.exec(file);
  if (library) return `python ${library[1]!.replace(/\.py$/, "")}`;
  return file;
}

export class Colours {
  private readonly known: string[] = [];

  constructor(private readonly data: Data, private readonly theme: Theme) {}

  /** The colour of a frame. */
  frame(frame: number): string {
    return (this.known[frame] ??= this.make(frame));
  }

  private make(frame: number): string {
    const { kind, file } = this.data.frames;
    const { dark } = this.theme;
    if (kind[frame] === NO_CODE) return this.theme.merged;
    const name = this.data.texts[file[frame]!]!;
    const code = hash(module(name, kind[frame]!));
    // Files of one package differ a little in lightness, packages in hue.
    const shade = (hash(name) >>> 8) % 7;
    const step = (code >>> 10) % 4;
    const saturation = kind[frame] === NATIVE ? 14 : dark ? 28 + step * 6 : 38 + step * 8;
    const lightness = dark ? 23 + shade : 74 + shade;
    return `hsl(${code % 360} ${saturation}% ${lightness}%)`;
  }

  /** The colour of what changed: orange grew, blue shrank, the stronger the more of it. */
  change(sums: Sums, unit: Unit): string {
    const { dark, root } = this.theme;
    const now = (unit === "blocks" ? sums.now.blocks : sums.now.bytes) ?? sums.now.bytes;
    const then = (unit === "blocks" ? sums.before?.blocks : sums.before?.bytes) ?? sums.before?.bytes ?? 0;
    if (now === then) return root;
    const share = Math.sqrt(Math.abs(now - then) / Math.max(now, then));
    const lightness = dark ? 22 + 14 * share : 92 - 24 * share;
    const saturation = (dark ? 20 : 30) + 60 * share;
    return `hsl(${now > then ? (dark ? 18 : 24) : 214} ${saturation.toFixed(0)}% ${lightness.toFixed(0)}%)`;
  }
}

/** FNV-1a. */
function hash(text: string): number {
  let code = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) code = Math.imul(code ^ text.charCodeAt(i), 0x01000193);
  // The low bits of short texts are mixed badly.
  code = Math.imul(code ^ (code >>> 15), 0x2c1b3c6d);
  return (code ^ (code >>> 13)) >>> 0;
}
