// The page's data: unpacked, and its columns as typed arrays.

export interface Run {
  strandline: string;
  command: string;
  started: number;
  finished: boolean;
  native: boolean;
  temporary_distance: number;
  doubts: string[];
}

export interface Process {
  pid: number;
  command: string;
  python: string;
  ended: boolean;
  /** Microseconds since the first process's start. */
  started: number;
  points: number;
}

export interface Thread {
  process: number;
  name: string;
  tid: number;
  others: boolean;
}

export interface Header {
  version: number;
  diff: boolean;
  title: string;
  weight: string;
  weights: [name: string, title: string][];
  runs: Run[];
  processes: Process[];
  threads: Thread[];
  columns: [name: string, count: number, bytes: number][];
}

/** Kinds of frames, as the page's writer numbers them. */
export const PYTHON = 0;
export const NATIVE = 1;
export const NO_CODE = 2;

const VERSION = 1;

/** Columns of LEB128 numbers, decoded when they are asked for. */
export class Columns {
  private readonly places = new Map<string, { count: number; at: number; bytes: number }>();

  constructor(header: Header, private readonly bytes: Uint8Array, start: number) {
    let at = start;
    for (const [name, count, bytes] of header.columns) {
      this.places.set(name, { count, at, bytes });
      at += bytes;
    }
    if (at > bytes.length) throw new Error("the data ends too early");
  }

  has(name: string): boolean {
    return this.places.has(name);
  }

  /** The bytes of a column. */
  raw(name: string): Uint8Array {
    const place = this.place(name);
    return this.bytes.subarray(place.at, place.at + place.bytes);
  }

  /** Numbers of up to 53 bits. */
  numbers(name: string): Float64Array {
    const place = this.place(name);
    const into = new Float64Array(place.count);
    this.decode(place.at, into);
    return into;
  }

  /** Numbers of up to 31 bits. */
  ints(name: string): Int32Array {
    const place = this.place(name);
    const into = new Int32Array(place.count);
    this.decode(place.at, into);
    return into;
  }

  /** Numbers that were written as distances. */
  distances(name: string): Float64Array {
    const numbers = this.numbers(name);
    let last = 0;
    for (let i = 0; i < numbers.length; i++) {
      const n = numbers[i]!;
      last += n % 2 === 0 ? n / 2 : -(n + 1) / 2;
      numbers[i] = last;
    }
    return numbers;
  }

  private place(name: string) {
    const place = this.places.get(name);
    if (!place) throw new Error(`the data has no ${name}`);
    return place;
  }

  private decode(at: number, into: Float64Array | Int32Array): void {
    const bytes = this.bytes;
    for (let i = 0; i < into.length; i++) {
      let byte = bytes[at++]!;
      let value = byte & 0x7f;
      // Bit operations hold 31 bits; what is beyond needs multiplication.
      for (let scale = 128; byte >= 0x80; scale *= 128) {
        byte = bytes[at++]!;
        value += (byte & 0x7f) * scale;
      }
      into[i] = value;
    }
  }
}

/** Header, columns, and the tables that everything refers to. */
export class Data {
  readonly texts: string[];
  readonly frames: {
    function: Int32Array;
    file: Int32Array;
    line: Int32Array;
    kind: Int32Array;
    /** Empty: the page has no source lines. */
    source: Int32Array;
  };
  /** Nodes of call paths, depth first; 0 is the root. A node's subtree ends before `end`. */
  readonly nodes: { parent: Int32Array; frame: Int32Array; end: Int32Array };
  readonly entries: { node: Int32Array; thread: Int32Array };

  constructor(readonly header: Header, readonly columns: Columns) {
    this.texts = texts(columns);
    this.frames = {
      function: columns.ints("frame.function"),
      file: columns.ints("frame.file"),
      line: columns.ints("frame.line"),
      kind: columns.ints("frame.kind"),
      source: columns.ints("frame.source"),
    };
    this.nodes = nodes(columns.ints("node.up"), columns.ints("node.frame"));
    this.entries = {
      node: Int32Array.from(columns.distances("entry.node")),
      thread: columns.ints("entry.thread"),
    };
  }
}

function texts(columns: Columns): string[] {
  const lengths = columns.ints("text.lengths");
  const bytes = columns.raw("text.bytes");
  const decoder = new TextDecoder();
  const texts: string[] = new Array(lengths.length);
  let at = 0;
  for (let i = 0; i < lengths.length; i++) {
    texts[i] = decoder.decode(bytes.subarray(at, at + lengths[i]!));
    at += lengths[i]!;
  }
  return texts;
}

function nodes(up: Int32Array, frames: Int32Array): Data["nodes"] {
  const count = up.length + 1;
  const parent = new Int32Array(count);
  const frame = new Int32Array(count);
  const end = new Int32Array(count).fill(count);
  frame.set(frames, 1);
  for (let i = 1; i < count; i++) {
    let above = i - 1;
    for (let n = up[i - 1]!; n > 0; n--) {
      end[above] = i;
      above = parent[above]!;
    }
    parent[i] = above;
  }
  return { parent, frame, end };
}

/** The data of unpacked bytes. */
export function parse(bytes: Uint8Array): Data {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as Header;
  if (header.version !== VERSION) throw new Error(`the data has version ${header.version}`);
  return new Data(header, new Columns(header, bytes, 4 + length));
}

/** Unpacks what stands in the page: gzip in base64. */
export async function unpack(base64: string): Promise<Data> {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < packed.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return parse(new Uint8Array(await new Response(stream).arrayBuffer()));
}
