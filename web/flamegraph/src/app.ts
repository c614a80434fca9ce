// Brings the state onto the page: each step is done again only if what it rests on has changed.
import { Chart, DARK_LOOK, legend, LIGHT_LOOK } from "./chart";
import { Colours, DARK, LIGHT } from "./colours";
import { BottomUp } from "./bottomup";
import { Controls } from "./controls";
import { crumbs } from "./crumbs";
import type { Data } from "./data";
import { describe, figure, type Description } from "./describe";
import { element } from "./dom";
import { mib, percent, shortMib, signed, whole } from "./format";
import { Graph } from "./graph";
import type { Box } from "./layout";
import { Names } from "./names";
import { follow, NO_FRAME, type Node, type Tree } from "./node";
import { find, sum, type Found } from "./search";
import { fromHash, hideOthers, type State, toHash } from "./state";
import { Store, type Figures } from "./store";
import { Threads } from "./threads";
import { highest, Timeline, type Series } from "./timeline";
import { Tooltip } from "./tooltip";
import { TopDown } from "./topdown";

const SYSTEM_DARK = matchMedia("(prefers-color-scheme: dark)");

export class App {
  state: State;
  readonly tooltip = new Tooltip();
  readonly graph: Graph;
  private readonly names: Names;
  private readonly timeline: Timeline | null;
  private readonly chart: Chart;
  private readonly threads: Threads;
  private readonly controls: Controls;
  private readonly figures = new Map<string, Figures>();
  private series: Series | null = null;
  private store!: Store;
  private tree!: Tree;
  private zoom!: Node;
  private found: Found | null = null;
  private made = { series: "", store: "", tree: "", search: "" };
  /** What the search made, for the state it was computed for. */
  private foundSum = 0;

  constructor(private readonly data: Data) {
    this.names = new Names(data);
    this.state = fromHash(location.hash, data.header);
    this.timeline = !data.header.diff && data.header.processes.some((p) => p.points > 1) ? new Timeline(data) : null;
    element("time").hidden = !this.timeline;
    this.graph = new Graph(this.tooltip, (node) => this.zoomTo(node));
    this.chart = new Chart((interval) => this.change({ interval, unit: interval ? "bytes" : this.state.unit }));
    this.threads = new Threads(data, this.names, (threads) => this.change({ threads }));
    this.controls = new Controls(data.header, this);
    SYSTEM_DARK.addEventListener("change", () => this.show());
    window.addEventListener("popstate", () => this.goTo(location.hash));
    this.show();
  }

  /** Changes what is shown, and the address with it. */
  change(part: Partial<State>): void {
    const before = this.state;
    this.state = { ...before, ...part };
    // A path of the other kind leads nowhere.
    if (this.state.view !== before.view || this.state.split !== before.split) this.state.zoom = part.zoom ?? [];
    hideOthers(this.state, this.data.header);
    this.show();
    const address = location.href.replace(/#.*$/, "") + (toHash(this.state, this.data.header) || "#");
    try {
      if (part.zoom) history.pushState(null, "", address);
      else history.replaceState(null, "", address);
    } catch {
      // A page within another one may not change its address; all else works.
    }
  }

  zoomTo(node: Node): void {
    if (node !== this.zoom) this.change({ zoom: node.path().map((step) => step.key) });
  }

  zoomOut(): void {
    if (this.zoom.parent) this.zoomTo(this.zoom.parent);
  }

  private goTo(hash: string): void {
    this.state = fromHash(hash, this.data.header);
    this.show();
  }

  private show(): void {
    const { state } = this;
    const dark = state.theme === "dark" || (state.theme === "system" && SYSTEM_DARK.matches);
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
    this.showTime(dark);
    this.weigh();
    this.zoom = follow(this.tree, state.zoom);
    state.zoom = this.zoom.path().map((step) => step.key);
    this.search();
    this.threads.show(state.threads);
    this.controls.show(state);
    crumbs(this.tree.root, this.zoom, this.names, (node) => this.zoomTo(node));
    this.sayWhat();
    this.draw(dark);
  }

  private showTime(dark: boolean): void {
    if (!this.timeline) {
      this.state.interval = null;
      return;
    }
    const chosen = this.chosenProcesses();
    if (this.remake("series", chosen.join())) this.series = this.timeline.series(chosen);
    const { times } = this.series!;
    const { interval } = this.state;
    if (interval) {
      const last = times.length - 1;
      const [from, to] = [Math.min(interval[0], last), Math.min(interval[1], last)];
      this.state.interval = last < 0 ? null : [Math.min(from, to), to];
    }
    const look = dark ? DARK_LOOK : LIGHT_LOOK;
    this.chart.show(this.series!, this.state.interval, look);
    element("legend").replaceChildren(...legend(look));
  }

  /** Processes of which a thread is shown. */
  private chosenProcesses(): boolean[] {
    const { processes, threads } = this.data.header;
    return processes.map((_, process) => threads.some((t, i) => t.process === process && this.state.threads[i]));
  }

  private weigh(): void {
    const { weight, unit, wide, split, threads, interval, view } = this.state;
    const key = [weight, unit, wide, split, threads.join(""), interval?.join(".") ?? ""].join(" ");
    if (this.remake("store", key)) {
      const { diff } = this.data.header;
      const figures = interval ? this.momentary(interval) : this.of(diff ? 1 : 0, weight);
      const before = diff ? this.of(0, weight) : null;
      this.store = new Store(this.data, { figures, before, unit, wide, threads, split });
    }
    if (this.remake("tree", `${key} ${view}`)) {
      const Kind = view === "callers" ? TopDown : BottomUp;
      this.tree = new Kind(this.data, this.store, split);
    }
  }

  private momentary([from, to]: [number, number]): Figures {
    const time = this.series!.times[highest(this.series!, from, to)]!;
    return this.timeline!.figures(this.chosenProcesses(), time);
  }

  private of(run: number, weight: string): Figures {
    const name = `${run}.${weight}`;
    let figures = this.figures.get(name);
    if (!figures) {
      const { columns } = this.data;
      figures = { bytes: columns.numbers(`${name}.bytes`), blocks: columns.numbers(`${name}.blocks`) };
      this.figures.set(name, figures);
    }
    return figures;
  }

  private search(): void {
    const { search } = this.state;
    if (!this.remake("search", `${this.made.store} ${search}`)) return;
    this.found = search ? find(this.data, search) : null;
    this.foundSum = this.found ? sum(this.data, this.store, this.found) : 0;
  }

  private remake(what: keyof App["made"], key: string): boolean {
    if (this.made[what] === key) return false;
    this.made[what] = key;
    return true;
  }

  private sayWhat(): void {
    const { root } = this.tree;
    const { now, before } = this.tree.total(root);
    const what = this.names.weight(this.state);
    const sum = now.blocks === null ? mib(now.bytes) : `${mib(now.bytes)} in ${whole(now.blocks)} blocks`;
    const change = before ? ` (before: ${mib(before.bytes)}, change: ${signed(now.bytes - before.bytes, mib)})` : "";
    element("sum").textContent = `Shown: ${what}, ${sum}${change}.`;
    element("empty").hidden = root.value > 0;
    const { found } = this;
    let text = "";
    if (found?.wrong) text = "This is no valid regular expression.";
    else if (found && found.count === 0) text = "Nothing matches.";
    else if (found) text = `${this.value(this.foundSum)}, ${percent(this.foundSum, root.value)} of what is shown, lead through a match (${whole(found.count)} places in code).`;
    element("found").textContent = text;
  }

  /** A width as text. */
  private value(value: number, format = mib): string {
    return this.state.unit === "blocks" && !this.state.interval ? `${whole(value)} blocks` : format(value);
  }

  private draw(dark: boolean): void {
    const { tree, zoom, names, found } = this;
    const { unit, growth } = this.state;
    const { diff } = this.data.header;
    const theme = dark ? DARK : LIGHT;
    const colours = new Colours(this.data, theme);
    const hits = found && !found.wrong ? found.frames : null;
    const amount = (node: Node): string => {
      if (!diff) return this.value(node.value, shortMib);
      const { now, before } = tree.total(node);
      const change = figure(now, unit) - figure(before!, unit);
      return signed(change, unit === "blocks" ? whole : shortMib);
    };
    this.graph.show({
      tree,
      zoom,
      theme,
      down: growth === "down",
      colour: (node) => {
        if (diff) return colours.change(tree.total(node), unit);
        return node.frame === NO_FRAME ? theme.root : colours.frame(node.frame);
      },
      label: (node, room) => {
        const name = names.of(node);
        return name.length + 10 < room ? `${name}  ${amount(node)}` : name;
      },
      matches: hits && ((node) => node.frame !== NO_FRAME && hits[node.frame] === 1),
      describe: (box) => this.describe(box),
    });
  }

  private describe(box: Box): Description {
    if (box.node) return describe(this.tree, this.names, box.node, this.zoom, this.state.unit);
    return {
      name: "Frames too narrow to draw",
      place: "",
      source: "",
      meaning: `Zoom into ${this.names.of(box.within)} to see them.`,
      rows: [["Together", this.value(box.value)]],
    };
  }
}
