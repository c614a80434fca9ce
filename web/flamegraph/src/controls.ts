// Buttons, lists and keys.
import type { App } from "./app";
import type { Header } from "./data";
import { element, make } from "./dom";
import type { Direction } from "./move";
import type { State, ThemeChoice } from "./state";

/** Buttons of which one is pressed: id of the group, and the part of the state it sets. */
const GROUPS = ["unit", "view", "growth", "wide"] as const;
const THEMES: ThemeChoice[] = ["system", "light", "dark"];

export class Controls {
  private readonly weight = element<HTMLSelectElement>("weight");
  private readonly search = element<HTMLInputElement>("search");
  private readonly help = element<HTMLDialogElement>("help");
  private readonly split = element<HTMLInputElement>("split");
  private readonly whole = element<HTMLButtonElement>("whole");
  private readonly interval = make("option", { value: "", disabled: "" }, "in use in the chosen interval");

  constructor(header: Header, private readonly app: App) {
    for (const [name, title] of header.weights) this.weight.append(make("option", { value: name }, title));
    if (!header.diff) this.weight.append(this.interval);
    this.weight.addEventListener("change", () => app.change({ weight: this.weight.value, interval: null }));
    for (const group of GROUPS) {
      for (const button of this.buttons(group)) {
        button.addEventListener("click", () => app.change({ [group]: button.value }));
      }
    }
    element("wide").hidden = !header.diff;
    for (const part of document.querySelectorAll<HTMLElement>("[data-only]")) {
      part.hidden = (part.dataset["only"] === "diff") !== header.diff;
    }
    this.split.addEventListener("change", () => app.change({ split: this.split.checked }));
    this.search.addEventListener("input", () => app.change({ search: this.search.value }));
    this.whole.addEventListener("click", () => app.change({ interval: null }));
    element("reset").addEventListener("click", () => app.change({ zoom: [] }));
    element("theme").addEventListener("click", () => this.nextTheme());
    element("help-button").addEventListener("click", () => this.help.showModal());
    document.addEventListener("keydown", (event) => this.key(event));
    this.about(header);
  }

  show(state: State): void {
    this.weight.value = state.interval ? "" : state.weight;
    for (const group of GROUPS) {
      for (const button of this.buttons(group)) {
        button.setAttribute("aria-pressed", `${button.value === state[group]}`);
      }
    }
    for (const button of this.buttons("unit")) {
      button.disabled = button.value === "blocks" && state.interval !== null;
    }
    this.split.checked = state.split;
    this.whole.hidden = state.interval === null;
    if (this.search.value !== state.search) this.search.value = state.search;
    element<HTMLButtonElement>("reset").disabled = state.zoom.length === 0;
    element("theme").textContent = `Theme: ${state.theme}`;
    element("view-note").textContent =
      state.view === "callers"
        ? "Each frame is a line of code; what it called stands next to it, away from “everything”."
        : "The frames next to “everything” are the lines that asked for memory; their callers follow.";
  }

  private buttons(group: string): HTMLButtonElement[] {
    return [...element(group).querySelectorAll("button")];
  }

  private nextTheme(): void {
    const at = THEMES.indexOf(this.app.state.theme);
    this.app.change({ theme: THEMES[(at + 1) % THEMES.length]! });
  }

  /** Title, command and doubts. */
  private about(header: Header): void {
    element("title").textContent = header.title;
    const runs = header.runs.map((run, at) => {
      const which = header.diff ? (at === 0 ? "Before: " : "After: ") : "";
      const when = run.started > 0 ? ` on ${new Date(run.started).toISOString().slice(0, 16).replace("T", " ")} UTC` : "";
      const open = run.finished ? "" : ", still running when this was written";
      // The title says it already in most cases.
      const command = run.command === header.title ? "Run" : run.command || "unknown command";
      return `${which}${command}${when}${open}`;
    });
    const { processes, threads } = header;
    const count = processes.length === 1 ? "1 process" : `${processes.length} processes`;
    runs.push(`${count}, ${threads.filter((t) => !t.others).length} threads`);
    element("about").textContent = runs.join("; ");
    const doubts = header.runs.flatMap((run) => run.doubts);
    element("doubts").hidden = doubts.length === 0;
    element("doubts-list").replaceChildren(...doubts.map((doubt) => make("li", {}, doubt)));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    const target = event.target as HTMLElement;
    let done = false;
    if (target === this.search) done = this.searchKey(event);
    else if (!typing(target)) done = this.plainKey(event);
    else if (event.key === "Escape") done = this.leave();
    if (done) event.preventDefault();
  }

  private searchKey(event: KeyboardEvent): boolean {
    if (event.key === "Enter") this.app.graph.nextMatch(event.shiftKey);
    else if (event.key === "Escape") this.leaveSearch();
    else return false;
    return true;
  }

  private leaveSearch(): void {
    if (this.search.value) this.app.change({ search: "" });
    else this.app.graph.take();
  }

  private plainKey(event: KeyboardEvent): boolean {
    const { app } = this;
    if (app.graph.focused && this.graphKey(event)) return true;
    switch (event.key) {
      case "/":
        this.search.focus();
        this.search.select();
        return true;
      case "?":
        this.help.showModal();
        return true;
      case "Escape":
        return this.leave();
      case "n":
      case "N":
        app.graph.nextMatch(event.key === "N");
        return true;
      case "v":
        app.change({ view: app.state.view === "callers" ? "lines" : "callers" });
        return true;
      case "o":
        app.change({ growth: app.state.growth === "down" ? "up" : "down" });
        return true;
      case "u":
        if (!app.state.interval) app.change({ unit: app.state.unit === "bytes" ? "blocks" : "bytes" });
        return true;
      case "t":
        app.change({ split: !app.state.split });
        return true;
      case "r":
        app.change({ zoom: [] });
        return true;
      case "d":
        this.nextTheme();
        return true;
      default:
        return false;
    }
  }

  private graphKey(event: KeyboardEvent): boolean {
    const { graph, state } = this.app;
    const [below, above]: Direction[] = state.growth === "down" ? ["in", "out"] : ["out", "in"];
    const moves: Record<string, Direction> = {
      ArrowDown: below!,
      ArrowUp: above!,
      ArrowLeft: "before",
      ArrowRight: "after",
      Home: "first",
      End: "last",
    };
    const to = moves[event.key];
    if (to) graph.go(to);
    else if (event.key === "Enter" || event.key === " ") graph.enter();
    else if (event.key === "Backspace") this.app.zoomOut();
    else return false;
    return true;
  }

  /** Leaves what was entered last: the tooltip, a menu, the search, the interval, the zoom. */
  private leave(): boolean {
    const { app } = this;
    const menu = element<HTMLDetailsElement>("threads-menu");
    if (app.tooltip.open) app.tooltip.hide();
    else if (menu.open) {
      menu.open = false;
      element("threads-summary").focus();
    } else if (app.state.search) app.change({ search: "" });
    else if (app.state.zoom.length > 0) app.zoomOut();
    else if (app.state.interval) app.change({ interval: null });
    else return false;
    return true;
  }
}

/** Letters typed there are not meant for the page. */
function typing(target: HTMLElement): boolean {
  return target instanceof HTMLSelectElement || (target instanceof HTMLInputElement && target.type !== "checkbox");
}
