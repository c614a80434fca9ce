// Figures as text, the same in every language of the browser.

const MIB = 1048576;

/** Bytes as MiB, three decimals as everywhere in strandline. */
export function mib(bytes: number): string {
  return `${group((Math.abs(bytes) / MIB).toFixed(3), bytes < 0)} MiB`;
}

/** Bytes as MiB where there is little room. */
export function shortMib(bytes: number): string {
  const size = Math.abs(bytes) / MIB;
  return `${group(size.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 3), bytes < 0)} MiB`;
}

/** A whole number. */
export function whole(n: number): string {
  return group(Math.abs(Math.round(n)).toFixed(0), n < 0);
}

export function blocks(n: number): string {
  return `${whole(n)} ${n === 1 ? "block" : "blocks"}`;
}

/** With a sign in front of what grew as well. */
export function signed(n: number, format: (n: number) => string): string {
  return n > 0 ? `+${format(n)}` : format(n);
}

export function percent(part: number, all: number): string {
  return all > 0 ? `${((100 * part) / all).toFixed(1)} %` : "–";
}

/** Microseconds as a point of time. */
export function seconds(us: number): string {
  const s = us / 1e6;
  if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(s / 60);
  const rest = `${Math.floor(s % 60)}`.padStart(2, "0");
  if (minutes < 60) return `${minutes}:${rest} min`;
  return `${Math.floor(minutes / 60)}:${`${minutes % 60}`.padStart(2, "0")}:${rest} h`;
}

function group(digits: string, negative: boolean): string {
  const [integer, decimals] = digits.split(".");
  const grouped = integer!.replace(/\B(?=(\d{3})+$)/g, ",");
  return `${negative ? "−" : ""}${grouped}${decimals ? `.${decimals}` : ""}`;
}
