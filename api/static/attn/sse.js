// An event stream's bytes -> frames. EventSource can't tell a 429 from a broken line; fetch and this can.

/** @typedef {import("./types").Frame} Frame */

const BLANK = /\r?\n\r?\n/; // ends a frame
const WIDEST = 3; // characters of it that may have come before the last one

/**
 * One block of the stream (the lines between two blank ones) -> a frame, or null if it carries no data and no `retry`.
 * @param {string} block
 * @param {(text: string) => any} [read] what makes values of JSON
 * @returns {Frame | null}
 */
export function parse(block, read = JSON.parse) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment, or nothing
    const name = line.slice(0, colon), value = line.slice(colon + 1).replace(/^ /, "");
    fields[name] = name === "data" && "data" in fields ? `${fields.data}\n${value}` : value;
  }
  if (!("data" in fields) && !("retry" in fields)) return null;
  const retry = /^\d+$/.test(fields.retry ?? "") ? Number(fields.retry) : undefined;
  return { id: fields.id, event: fields.event ?? "message", data: fields.data && read(fields.data), retry };
}

/**
 * Reads an event stream's bytes, in any pieces, and yields its frames. Linear in the size of a frame: pieces are joined once
 * its end has arrived.
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>} bytes
 * @param {(text: string) => any} [read] what makes values of JSON
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
    last = seam.slice(-WIDEST);
    if (!BLANK.test(seam)) continue;
    const blocks = parts.join("").split(BLANK), rest = blocks.pop() ?? "";
    parts = [rest];
    last = rest.slice(-WIDEST);
    for (const block of blocks) {
      const frame = parse(block, read);
      if (frame) yield frame;
    }
  }
}

/**
 * Safari can't iterate a stream.
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
