// The menu of processes and threads.
import type { Data } from "./data";
import { element, make } from "./dom";
import type { Names } from "./names";

export class Threads {
  private readonly list = element("threads");
  private readonly summary = element("threads-summary");
  private readonly boxes = new Map<number, HTMLInputElement>();
  private readonly processes: HTMLInputElement[] = [];

  constructor(
    private readonly data: Data,
    names: Names,
    private readonly choose: (threads: Uint8Array) => void,
  ) {
    const { processes, threads } = data.header;
    // Threads that have nothing are left out of the menu.
    const used = new Uint8Array(threads.length);
    for (const thread of data.entries.thread) used[thread] = 1;
    processes.forEach((_, process) => {
      const all = make("input", { type: "checkbox" });
      all.addEventListener("change", () => this.set((t) => (threads[t]!.process === process ? all.checked : null)));
      const only = make("button", { type: "button" }, "only this");
      only.setAttribute("aria-label", `only this: ${names.process(process)}`);
      only.addEventListener("click", () => this.set((t) => threads[t]!.process === process));
      const head = make("label", { class: "process" }, all, names.process(process));
      const rows = make("div", { class: "rows" });
      threads.forEach((thread, t) => {
        if (thread.process === process && !thread.others && used[t]) rows.append(this.row(t, names));
      });
      this.processes.push(all);
      const group = make("div", { role: "group", "aria-label": names.process(process) }, head, rows);
      if (processes.length > 1) group.prepend(only);
      this.list.append(group);
    });
    const everything = make("button", { type: "button" }, "all");
    everything.addEventListener("click", () => this.set(() => true));
    this.list.prepend(everything);
  }

  show(chosen: Uint8Array): void {
    const { threads } = this.data.header;
    for (const [t, box] of this.boxes) box.checked = chosen[t] === 1;
    this.processes.forEach((box, process) => {
      const own = [...this.boxes.keys()].filter((t) => threads[t]!.process === process);
      const count = own.filter((t) => chosen[t] === 1).length;
      box.checked = count > 0 && count === own.length;
      box.indeterminate = count > 0 && count < own.length;
    });
    const shown = [...this.boxes.keys()].filter((t) => chosen[t] === 1).length;
    const all = shown === this.boxes.size;
    this.summary.textContent = all ? `Threads: all ${shown}` : `Threads: ${shown} of ${this.boxes.size}`;
  }

  private row(t: number, names: Names): HTMLElement {
    const box = make("input", { type: "checkbox" });
    box.addEventListener("change", () => this.set((other) => (other === t ? box.checked : null)));
    this.boxes.set(t, box);
    return make("label", {}, box, names.threadAlone(t));
  }

  /** Chooses by a rule: null leaves a thread as it is. */
  private set(rule: (thread: number) => boolean | null): void {
    const { threads } = this.data.header;
    const chosen = Uint8Array.from(threads, (_, t) => {
      const box = this.boxes.get(t);
      return Number(rule(t) ?? box?.checked ?? true);
    });
    this.choose(chosen);
  }
}
