// The graph on the page: a canvas that stays in sight while a sheet of all rows scrolls under it.
import type { Theme } from "./colours";
import { sentence, type Description } from "./describe";
import { element, prepare } from "./dom";
import { hit, layout, type Box } from "./layout";
import { boxOf, move, next, type Direction } from "./move";
import type { Node, Tree } from "./node";
import { paint, ROW } from "./paint";
import type { Tooltip } from "./tooltip";

export interface Scene {
  tree: Tree;
  zoom: Node;
  /** The root stands at the top, or at the bottom. */
  down: boolean;
  theme: Theme;
  colour: (node: Node) => string;
  label: (node: Node, room: number) => string;
  matches: ((node: Node) => boolean) | null;
  describe: (box: Box) => Description;
}

/** Rows that are laid out beyond those in sight. */
const AHEAD = 40;

export class Graph {
  private readonly scroller = element("graph");
  private readonly sheet = element("sheet");
  private readonly canvas = element<HTMLCanvasElement>("canvas");
  private readonly focusFrame = element("focus");
  private readonly hoverFrame = element("hover");
  private readonly spoken = element("spoken");
  private scene: Scene | null = null;
  private rows: Box[][] = [];
  private more = false;
  private height = 0;
  private focus: Box | null = null;
  private hover: Box | null = null;
  private waiting = false;
  /** Times of the last layout and painting together, in ms: for tests. */
  lastTook = 0;

  constructor(private readonly tooltip: Tooltip, private readonly zoomTo: (node: Node) => void) {
    new ResizeObserver(() => this.arrange(this.fromRoot)).observe(this.scroller);
    this.scroller.addEventListener("scroll", () => this.scrolled());
    this.scroller.addEventListener("pointermove", (event) => this.pointed(event));
    this.scroller.addEventListener("pointerleave", () => this.leave());
    // Before the focus comes, which brings into sight what has it.
    this.scroller.addEventListener("pointerdown", (event) => (this.focus = this.boxAt(event) ?? this.focus));
    this.scroller.addEventListener("click", (event) => this.clicked(event));
    this.scroller.addEventListener("focus", () => this.focusAt(this.focus ?? this.zoomBox));
    this.scroller.addEventListener("blur", () => this.tooltip.hide());
  }

  /** Draws a scene; a new zoom comes into sight. */
  show(scene: Scene): void {
    const before = this.scene;
    this.scene = scene;
    const zoomed = before?.zoom !== scene.zoom || before.tree !== scene.tree || before.down !== scene.down;
    this.leave();
    this.arrange(zoomed ? Math.max(0, scene.zoom.depth - 3) * ROW : this.fromRoot);
    const focus = this.focus;
    this.focus = focus && (boxOf(this.rows, focus.node ?? focus.within) ?? null);
    if (this.focused) this.focusAt(this.focus ?? this.zoomBox);
    else this.outline(this.focusFrame, null);
  }

  get focused(): boolean {
    return document.activeElement === this.scroller;
  }

  /** Boxes that are drawn, row by row: for tests. */
  get boxes(): Box[][] {
    return this.rows;
  }

  take(): void {
    this.scroller.focus();
  }

  go(direction: Direction): void {
    const from = this.focus ?? this.zoomBox;
    if (from) this.focusAt(move(this.rows, from, direction));
  }

  enter(): void {
    if (this.focus) this.zoomTo(this.focus.node ?? this.focus.within);
  }

  /** To the next frame that a search found. */
  nextMatch(backwards: boolean): void {
    const { matches } = this.scene!;
    if (!matches) return;
    const found = next(this.rows, this.focus, (box) => box.node !== null && matches(box.node), backwards);
    if (!found) return;
    this.focus = found;
    if (this.focused) this.focusAt(found);
    else this.take();
  }

  private get zoomBox(): Box | null {
    return this.rows[this.scene!.zoom.depth]?.[0] ?? null;
  }

  /** How far the sheet is scrolled away from its root. */
  private get fromRoot(): number {
    const { scrollTop, clientHeight } = this.scroller;
    return this.scene?.down === false ? this.height - clientHeight - scrollTop : scrollTop;
  }

  private arrange(fromRoot: number): void {
    if (!this.scene) return;
    const start = performance.now();
    const { tree, zoom, down } = this.scene;
    const { clientWidth, clientHeight } = this.scroller;
    const most = Math.ceil((fromRoot + clientHeight) / ROW) + AHEAD;
    ({ rows: this.rows, more: this.more } = layout(tree, zoom, clientWidth, most));
    this.height = Math.max(this.rows.length * ROW, clientHeight);
    this.sheet.style.height = `${this.height}px`;
    this.scroller.scrollTop = down ? fromRoot : this.height - clientHeight - fromRoot;
    this.draw();
    this.lastTook = performance.now() - start;
  }

  private scrolled(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const { clientHeight } = this.scroller;
      const near = this.fromRoot + clientHeight > (this.rows.length - AHEAD / 2) * ROW;
      if (this.more && near) this.arrange(this.fromRoot);
      else this.draw();
    });
  }

  private draw(): void {
    const { scene, rows } = this;
    if (!scene) return;
    const { clientWidth: width, clientHeight: height, scrollTop } = this.scroller;
    const context = prepare(this.canvas, width, height);
    const top = (row: number) => this.top(row) - scrollTop;
    paint(context, { ...scene, rows, top, width, height, zoomRow: scene.zoom.depth });
    this.outline(this.focusFrame, this.focused ? this.focus : null);
    this.outline(this.hoverFrame, this.hover);
  }

  /** Where a row stands on the sheet. */
  private top(row: number): number {
    return this.scene?.down ? row * ROW : this.height - (row + 1) * ROW;
  }

  private outline(frame: HTMLElement, box: Box | null): void {
    frame.hidden = box === null;
    if (!box) return;
    frame.style.transform = `translate(${box.x}px, ${this.top(box.row)}px)`;
    frame.style.width = `${Math.max(box.width, 3)}px`;
    frame.style.height = `${ROW}px`;
  }

  private boxAt(event: MouseEvent): Box | null {
    const { left, top } = this.canvas.getBoundingClientRect();
    const y = event.clientY - top + this.scroller.scrollTop;
    const row = Math.floor((this.scene?.down ? y : this.height - y) / ROW);
    return hit(this.rows[row], event.clientX - left);
  }

  private pointed(event: PointerEvent): void {
    this.hover = this.boxAt(event);
    this.outline(this.hoverFrame, this.hover);
    this.scroller.style.cursor = this.hover ? "pointer" : "";
    if (this.hover) this.tooltip.show(this.scene!.describe(this.hover), event.clientX, event.clientY);
    else this.tooltip.hide();
  }

  private leave(): void {
    this.hover = null;
    this.outline(this.hoverFrame, null);
    this.tooltip.hide();
  }

  private clicked(event: MouseEvent): void {
    const box = this.boxAt(event);
    if (!box) return;
    this.focus = box;
    this.zoomTo(box.node ?? box.within);
    this.tooltip.hide();
  }

  /** Gives a box the focus: into sight, outlined, described and spoken. */
  private focusAt(box: Box | null): void {
    this.focus = box;
    if (!box) return;
    this.reveal(box);
    this.outline(this.focusFrame, box);
    const about = this.scene!.describe(box);
    const row = this.rows[box.row]!;
    const position = `Level ${box.row}, ${row.indexOf(box) + 1} of ${row.length} in its row`;
    // A screen reader reads an element anew only if it is another one.
    const item = document.createElement("div");
    item.id = this.spoken.firstElementChild?.id === "frame-a" ? "frame-b" : "frame-a";
    item.setAttribute("role", "treeitem");
    item.setAttribute("aria-level", `${box.row + 1}`);
    item.setAttribute("aria-selected", "true");
    item.setAttribute("aria-label", sentence(about, position));
    this.spoken.replaceChildren(item);
    this.scroller.setAttribute("aria-activedescendant", item.id);
    const { left, top } = this.scroller.getBoundingClientRect();
    const y = top + this.top(box.row) - this.scroller.scrollTop + ROW;
    this.tooltip.show(about, left + box.x, y);
  }

  private reveal(box: Box): void {
    const top = this.top(box.row);
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.scroller.scrollTop = top + ROW - clientHeight;
  }
}
