// What is said about one frame: in the tooltip, and to a screen reader.
import { blocks, mib, percent, signed, whole } from "./format";
import type { Names } from "./names";
import { NO_FRAME, type Node, type Tree } from "./node";
import type { Amount, Sums, Unit } from "./store";

export interface Description {
  name: string;
  place: string;
  source: string;
  meaning: string;
  /** What it is, and how much. */
  rows: [label: string, value: string][];
}

/** The figure that is shown. */
export function figure(amount: Amount, unit: Unit): number {
  return (unit === "blocks" ? amount.blocks : null) ?? amount.bytes;
}

export function describe(tree: Tree, names: Names, node: Node, zoom: Node, unit: Unit): Description {
  const total = tree.total(node);
  const rows: [string, string][] = [];
  const innermost = node.frame !== NO_FRAME;
  rows.push([innermost ? "With all beneath it" : "Together", amounts(total.now)]);
  if (total.before) changes(total as Sums & { before: Amount }, rows);
  if (innermost) rows.push(["By this line itself", amounts(tree.own(node).now)]);
  rows.push(["Share of everything", share(tree.root, node)]);
  if (zoom.parent && zoom !== node && within(node, zoom)) rows.push([`Share of ${names.of(zoom)}`, share(zoom, node)]);
  return {
    name: names.of(node),
    place: names.place(node),
    source: names.source(node),
    meaning: names.meaning(node),
    rows,
  };

  function share(all: Node, part: Node): string {
    // A difference has no share of what is there now alone: widths are what is compared.
    if (total.before) return percent(part.value, all.value);
    return percent(figure(total.now, unit), figure(tree.total(all).now, unit));
  }
}

function within(node: Node, zoom: Node): boolean {
  for (let at: Node | null = node; at; at = at.parent) if (at === zoom) return true;
  return false;
}

function amounts(amount: Amount): string {
  if (amount.bytes === 0 && !amount.blocks) return "nothing";
  const bytes = amount.bytes < 104858 ? `${mib(amount.bytes)} (${whole(amount.bytes)} bytes)` : mib(amount.bytes);
  return amount.blocks === null ? bytes : `${bytes} in ${blocks(amount.blocks)}`;
}

function changes(sums: Sums & { before: Amount }, rows: [string, string][]): void {
  const { before, now } = sums;
  rows[rows.length - 1]![0] = "After, with all beneath it";
  rows.push(["Before", amounts(before)]);
  const bytes = signed(now.bytes - before.bytes, mib);
  const count = now.blocks === null || before.blocks === null ? "" : `, ${signed(now.blocks - before.blocks, blocks)}`;
  rows.push(["Change", bytes + count]);
}

/** The same as one sentence. */
export function sentence(about: Description, position: string): string {
  const rows = about.rows.map(([label, value]) => `${label}: ${value}`);
  return [about.name, about.place, about.source, about.meaning, ...rows, position].filter((text) => text).join(". ");
}
