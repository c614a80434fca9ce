// What was in use over time: the timelines of the chosen processes added up.
import type { Data } from "./data";
import type { Figures } from "./store";

/** Times in microseconds since the first process's start, amounts in bytes. */
export interface Series {
  times: Float64Array;
  inUse: Float64Array;
  stranded: Float64Array;
  rss: Float64Array;
}

export class Timeline {
  private readonly time: Float64Array;
  private readonly inUse: Float64Array;
  private readonly rss: Float64Array;
  private readonly stranded: Float64Array;
  private readonly topEnd: Float64Array;
  private readonly topEntry: Int32Array;
  private readonly topBytes: Float64Array;
  private readonly othersEntry: Int32Array;
  private readonly othersBytes: Float64Array;
  /** First point of each process, and the end. */
  private readonly starts: number[] = [0];

  constructor(private readonly data: Data) {
    const { columns } = data;
    this.time = columns.distances("point.time");
    this.inUse = columns.numbers("point.in_use");
    this.rss = columns.numbers("point.rss");
    this.stranded = columns.numbers("point.stranded");
    this.topEnd = columns.numbers("point.top");
    for (let i = 1; i < this.topEnd.length; i++) this.topEnd[i]! += this.topEnd[i - 1]!;
    this.topEntry = columns.ints("top.entry");
    this.topBytes = columns.numbers("top.bytes");
    this.othersEntry = columns.ints("others.entry");
    this.othersBytes = columns.numbers("others.bytes");
    let next = 0;
    for (const process of data.header.processes) {
      for (let i = 0; i < process.points; i++) this.time[next + i]! += process.started;
      this.starts.push((next += process.points));
    }
  }

  /** The sum over the chosen processes, at every time that one of them has a point at. */
  series(chosen: boolean[]): Series {
    const all = new Set<number>();
    chosen.forEach((yes, process) => {
      if (yes) for (let i = this.starts[process]!; i < this.starts[process + 1]!; i++) all.add(this.time[i]!);
    });
    const times = Float64Array.from(all).sort();
    const series = {
      times,
      inUse: new Float64Array(times.length),
      stranded: new Float64Array(times.length),
      rss: new Float64Array(times.length),
    };
    chosen.forEach((yes, process) => {
      if (!yes) return;
      for (let t = 0; t < times.length; t++) {
        const point = this.at(process, times[t]!);
        if (point < 0) continue;
        series.inUse[t]! += this.inUse[point]!;
        series.stranded[t]! += this.stranded[point]!;
        series.rss[t]! += this.rss[point]!;
      }
    });
    return series;
  }

  /** What the entries held at a time. */
  figures(chosen: boolean[], time: number): Figures {
    const bytes = new Float64Array(this.data.entries.node.length);
    chosen.forEach((yes, process) => {
      const point = yes ? this.at(process, time) : -1;
      if (point < 0) return;
      for (let i = point > 0 ? this.topEnd[point - 1]! : 0; i < this.topEnd[point]!; i++) {
        bytes[this.topEntry[i]!]! += this.topBytes[i]!;
      }
      bytes[this.othersEntry[process]!]! += this.othersBytes[point]!;
    });
    return { bytes, blocks: null };
  }

  /** A process's last point at or before a time; -1: it had not begun, or was over. */
  private at(process: number, time: number): number {
    let low = this.starts[process]!;
    let high = this.starts[process + 1]!;
    const [first, end] = [low, high];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.time[middle]! <= time) low = middle + 1;
      else high = middle;
    }
    if (low === first) return -1;
    const over = low === end && this.time[low - 1]! < time && this.data.header.processes[process]!.ended;
    return over ? -1 : low - 1;
  }
}

/** The point with most in use from `from` to `to` (indexes, both included). */
export function highest(series: Series, from: number, to: number): number {
  let best = from;
  for (let i = from; i <= to; i++) if (series.inUse[i]! > series.inUse[best]!) best = i;
  return best;
}
