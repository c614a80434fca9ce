// The chart over time, and the interval that is chosen on it.
import { element, make, prepare } from "./dom";
import { mib, seconds, shortMib } from "./format";
import { highest, type Series } from "./timeline";

const HEIGHT = 120;
const LEFT = 76;
const BOTTOM = 18;
const TOP = 6;

/** Choosing less than this, in pixels, is a click: no interval. */
const CLICK = 4;

export interface Look {
  inUse: string;
  area: string;
  stranded: string;
  rss: string;
  text: string;
  line: string;
  brush: string;
}

export const LIGHT_LOOK: Look = {
  inUse: "#1f5fbf",
  area: "rgb(31 95 191 / 18%)",
  stranded: "#b3470b",
  rss: "#565a63",
  text: "#45484f",
  line: "#e0e2e7",
  brush: "rgb(139 26 139 / 16%)",
};

export const DARK_LOOK: Look = {
  inUse: "#8ab4f8",
  area: "rgb(138 180 248 / 18%)",
  stranded: "#f0a36b",
  rss: "#b4b8c2",
  text: "#c0c3cb",
  line: "#2f323a",
  brush: "rgb(240 166 240 / 20%)",
};

export class Chart {
  private readonly canvas = element<HTMLCanvasElement>("chart");
  private readonly from = element<HTMLInputElement>("from");
  private readonly to = element<HTMLInputElement>("to");
  private readonly readout = element("readout");
  private series: Series | null = null;
  private interval: [number, number] | null = null;
  private look = LIGHT_LOOK;
  private started = -1;

  constructor(private readonly choose: (interval: [number, number] | null) => void) {
    new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement!);
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerup", (event) => this.release(event));
    this.canvas.addEventListener("pointerleave", () => this.say(null));
    for (const input of [this.from, this.to]) input.addEventListener("input", () => this.slid(input));
  }

  show(series: Series, interval: [number, number] | null, look: Look): void {
    this.series = series;
    this.interval = interval;
    this.look = look;
    const last = `${Math.max(0, series.times.length - 1)}`;
    for (const [input, value] of [[this.from, interval?.[0] ?? 0], [this.to, interval?.[1] ?? Number(last)]] as const) {
      input.max = last;
      input.value = `${value}`;
      input.setAttribute("aria-valuetext", seconds(series.times[value] ?? 0));
    }
    this.draw();
    this.say(null);
  }

  private get end(): number {
    return this.series?.times[this.series.times.length - 1] || 1;
  }

  private x(time: number): number {
    return LEFT + ((this.canvas.clientWidth - LEFT - 8) * time) / this.end;
  }

  /** The point closest to a place on the canvas. */
  private pointAt(x: number): number {
    const { times } = this.series!;
    const time = (this.end * (x - LEFT)) / (this.canvas.clientWidth - LEFT - 8);
    let best = 0;
    for (let i = 0; i < times.length; i++) {
      if (Math.abs(times[i]! - time) < Math.abs(times[best]! - time)) best = i;
    }
    return best;
  }

  private press(event: PointerEvent): void {
    if (!this.series || event.button !== 0) return;
    this.started = event.offsetX;
    this.canvas.setPointerCapture(event.pointerId);
  }

  private moved(event: PointerEvent): void {
    if (!this.series) return;
    if (this.started >= 0 && Math.abs(event.offsetX - this.started) >= CLICK) {
      this.interval = this.between(event.offsetX);
      this.draw();
    }
    this.say(this.pointAt(event.offsetX));
  }

  private release(event: PointerEvent): void {
    if (this.started < 0) return;
    const chosen = Math.abs(event.offsetX - this.started) >= CLICK ? this.between(event.offsetX) : null;
    this.started = -1;
    this.choose(chosen);
  }

  private between(x: number): [number, number] {
    const [a, b] = [this.pointAt(this.started), this.pointAt(x)];
    return [Math.min(a, b), Math.max(a, b)];
  }

  private slid(moved: HTMLInputElement): void {
    const other = moved === this.from ? this.to : this.from;
    const crossed = Number(this.from.value) > Number(this.to.value);
    if (crossed) other.value = moved.value;
    this.choose([Number(this.from.value), Number(this.to.value)]);
  }

  /** The figures of a point, or of the highest one. */
  private say(point: number | null): void {
    const { series } = this;
    if (!series || series.times.length === 0) return;
    const [from, to] = this.interval ?? [0, series.times.length - 1];
    const at = point ?? highest(series, from, to);
    const when = point === null ? `Highest (at ${seconds(series.times[at]!)})` : `At ${seconds(series.times[at]!)}`;
    const rss = series.rss[at]! > 0 ? mib(series.rss[at]!) : "–";
    this.readout.textContent = `${when}: in use ${mib(series.inUse[at]!)}, stranded ${mib(series.stranded[at]!)}, RSS ${rss}`;
  }

  private draw(): void {
    const { series, look } = this;
    if (!series) return;
    const width = this.canvas.parentElement!.clientWidth;
    const context = prepare(this.canvas, width, HEIGHT);
    context.clearRect(0, 0, width, HEIGHT);
    context.font = "11px system-ui, sans-serif";
    let top = 1;
    for (const line of [series.inUse, series.stranded, series.rss]) for (const value of line) top = Math.max(top, value);
    const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    this.axes(context, width, top, y);
    this.line(context, series.rss, y, look.rss, [2, 2]);
    this.line(context, series.stranded, y, look.stranded, [6, 3]);
    this.line(context, series.inUse, y, look.inUse, []);
    this.area(context, series.inUse, y);
    if (this.interval) this.brush(context);
  }

  private axes(context: CanvasRenderingContext2D, width: number, top: number, y: (value: number) => number): void {
    const { look } = this;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      context.fillStyle = look.line;
      context.fillRect(LEFT, Math.round(y(top * share)), width - LEFT - 8, 1);
      context.fillStyle = look.text;
      context.fillText(share === 0 ? "0" : shortMib(top * share), LEFT - 6, Math.max(y(top * share), 8));
    }
    context.textBaseline = "bottom";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      context.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
      context.fillText(seconds(this.end * share), this.x(this.end * share), HEIGHT - 1);
    }
  }

  private line(context: CanvasRenderingContext2D, values: Float64Array, y: (value: number) => number, colour: string, dash: number[]): void {
    context.beginPath();
    this.trace(context, values, y);
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  private area(context: CanvasRenderingContext2D, values: Float64Array, y: (value: number) => number): void {
    const { times } = this.series!;
    context.beginPath();
    context.moveTo(this.x(times[0] ?? 0), y(0));
    this.trace(context, values, y);
    context.lineTo(this.x(this.end), y(0));
    context.fillStyle = this.look.area;
    context.fill();
  }

  private trace(context: CanvasRenderingContext2D, values: Float64Array, y: (value: number) => number): void {
    values.forEach((value, i) => context.lineTo(this.x(this.series!.times[i]!), y(value)));
  }

  private brush(context: CanvasRenderingContext2D): void {
    const { times } = this.series!;
    const [from, to] = this.interval!;
    const left = this.x(times[from] ?? 0);
    const right = Math.max(this.x(times[to] ?? 0), left + 2);
    context.fillStyle = this.look.brush;
    context.fillRect(left, TOP, right - left, HEIGHT - TOP - BOTTOM);
    context.fillStyle = this.look.text;
    for (const x of [left, right]) context.fillRect(x - 0.5, TOP, 1, HEIGHT - TOP - BOTTOM);
  }
}

/** The names of the lines, with their colours. */
export function legend(look: Look): HTMLElement[] {
  const lines: [string, string, string][] = [
    ["in use", look.inUse, "solid"],
    ["stranded: kept by an allocator, used by nobody", look.stranded, "dashed"],
    ["RSS: what the system counts", look.rss, "dotted"],
  ];
  return lines.map(([name, colour, style]) => {
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.borderTop = `2px ${style} ${colour}`;
    return make("span", {}, swatch, name);
  });
}
