// The box with what is known about the frame under the pointer or the one with the focus.
import type { Description } from "./describe";
import { element, make } from "./dom";

/** Distance to the pointer, and to the window's border. */
const GAP = 14;

export class Tooltip {
  private readonly box = element("tooltip");

  get open(): boolean {
    return !this.box.hidden;
  }

  /** Shows it beside a point of the window. */
  show(about: Description, x: number, y: number): void {
    const rows = about.rows.map(([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value)));
    const parts = [make("strong", {}, about.name)];
    if (about.place) parts.push(make("span", { class: "place" }, about.place));
    if (about.source) parts.push(make("code", {}, about.source));
    if (about.meaning) parts.push(make("span", { class: "meaning" }, about.meaning));
    this.box.replaceChildren(...parts, make("dl", {}, ...rows));
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = Math.max(GAP, Math.min(x + GAP, window.innerWidth - width - GAP));
    const above = y - height - GAP;
    const below = y + GAP;
    const top = below + height < window.innerHeight ? below : Math.max(GAP, above);
    this.box.style.left = `${left}px`;
    this.box.style.top = `${top}px`;
  }

  hide(): void {
    this.box.hidden = true;
  }
}
