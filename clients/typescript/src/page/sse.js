// Parses the bytes of an event stream into frames. EventSource does not report the HTTP status, so the page uses `fetch` and
// this parser.

/** @typedef {import("./types").Frame} Frame */

const BLANK = /\r?\n\r?\n/; // end of a frame
const OVERLAP = 3; // characters of BLANK that may be at the end of the previous chunk

/**
 * Parses one block of the stream (the lines between two blank lines). Returns null if it has neither data nor `retry`.
 * @param {string} block
 * @param {(text: string) => any} [read] parser of the JSON data
 * @returns {Frame | null}
 */
export function parse(block, read = JSON.parse) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment, or an empty line
    const name = line.slice(0, colon), value = line.slice(colon + 1).replace(/^ /, "");
    fields[name] = name === "data" && "data" in fields ? `${fields.data}\n${value}` : value;
  }
  if (!("data" in fields) && !("retry" in fields)) return null;
  const retry = /^\d+$/.test(fields.retry ?? "") ? Number(fields.retry) : undefined;
  return { id: fields.id, event: fields.event ?? "message", data: fields.data && read(fields.data), retry };
}

/**
 * Yields the frames of an event stream whose bytes arrive in chunks of any size. Linear in the size of a frame: chunks are
 * joined when the end of the frame has arrived.
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>} bytes
 * @param {(text: string) => any} [read] parser of the JSON data
 * @returns {AsyncGenerator<Frame>}
 */
export async function* frames(bytes, read = JSON.parse) {
  const decoder = new TextDecoder();
  /** @type {string[]} */
  let parts = [];
  let last = "";
  for await (const piece of chunks(bytes)) {
    const text = decoder.decode(piece, { stream: true }), seam = last + text;
    parts.push(text);
    last = seam.slice(-OVERLAP);
    if (!BLANK.test(seam)) continue;
    const blocks = parts.join("").split(BLANK), rest = blocks.pop() ?? "";
    parts = [rest];
    last = rest.slice(-OVERLAP);
    for (const block of blocks) {
      const frame = parse(block, read);
      if (frame) yield frame;
    }
  }
}

/**
 * Iterates a stream with a reader, because Safari has no async iteration of streams.
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>} bytes
 * @returns {AsyncGenerator<Uint8Array>}
 */
export async function* chunks(bytes) {
  if (!("getReader" in bytes)) {
    yield* bytes;
    return;
  }
  const reader = bytes.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.releaseLock();
  }
}
