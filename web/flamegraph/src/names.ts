// What things are called on the page.
import { NATIVE, NO_CODE, type Data } from "./data";
import { NO_FRAME, type Node } from "./node";
import type { State } from "./state";

/** The frame of what was allocated while no code was known to run. */
const UNKNOWN = 0;

export class Names {
  constructor(private readonly data: Data) {}

  /** A frame's function, or what stands for it. */
  of(node: Node): string {
    if (node.thread >= 0) return this.thread(node.thread);
    if (node.frame === NO_FRAME) return "everything";
    const { kind, function: functions } = this.data.frames;
    if (kind[node.frame] === NO_CODE) return node.frame === UNKNOWN ? "no code known" : "all other paths";
    return this.data.texts[functions[node.frame]!]! || "(no name)";
  }

  /** File and line; empty: there is none. */
  place(node: Node): string {
    if (node.frame === NO_FRAME) return "";
    const { kind, file, line } = this.data.frames;
    if (kind[node.frame] === NO_CODE) return "";
    const name = this.data.texts[file[node.frame]!]!;
    if (kind[node.frame] === NATIVE) return `${name} (machine code)`;
    return line[node.frame]! > 0 ? `${name}:${line[node.frame]}` : name;
  }

  /** The source line; empty: not known. */
  source(node: Node): string {
    const { source } = this.data.frames;
    return node.frame === NO_FRAME || source.length === 0 ? "" : this.data.texts[source[node.frame] ?? 0]!;
  }

  /** What a node that is no code means; empty: it is code. */
  meaning(node: Node): string {
    if (node.frame === NO_FRAME || this.data.frames.kind[node.frame] !== NO_CODE) return "";
    return node.frame === UNKNOWN
      ? "Asked for while no Python code was known to run."
      : "At each moment only the paths with most in use were written down; this is what all others had in use.";
  }

  process(at: number): string {
    const { pid, command, python } = this.data.header.processes[at]!;
    const name = pid > 0 ? `process ${pid}` : `process no. ${at + 1}`;
    const words = command.length > 60 ? `${command.slice(0, 60)}…` : command;
    return [name, words && `: ${words}`, python && ` (Python ${python})`].join("");
  }

  /** A thread with its process if there are several. */
  thread(at: number): string {
    const { process } = this.data.header.threads[at]!;
    const { processes } = this.data.header;
    const { pid } = processes[process]!;
    const name = this.threadAlone(at);
    return processes.length > 1 ? `${name}, process ${pid || process + 1}` : name;
  }

  threadAlone(at: number): string {
    const { process, name, tid, others } = this.data.header.threads[at]!;
    if (others) return "all other paths";
    const first = this.data.header.threads.findIndex((t) => t.process === process) === at;
    if (name) return name;
    if (tid > 0) return `thread ${tid}`;
    return first ? "threads not told apart" : "thread without a name";
  }

  /** What the widths stand for. */
  weight(state: State): string {
    if (state.interval) return "in use at the highest moment of the chosen interval";
    const title = this.data.header.weights.find(([name]) => name === state.weight)![1];
    // Their highest moments may be different ones.
    const each = this.data.header.processes.length > 1 && /peak$/.test(state.weight);
    return each ? `${title}, of each process its own` : title;
  }
}
