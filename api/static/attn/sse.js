// An event stream's bytes -> frames. EventSource can't tell a 429 from a broken line; fetch and this can.

/** @typedef {import("./types").Frame} Frame */

/**
 * One block of the stream (the lines between two blank ones) -> a frame, or null if it carries no data and no `retry`.
 * @param {string} block
 * @returns {Frame | null}
 */
export function parse(block) {
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
  return { id: fields.id, event: fields.event ?? "message", data: fields.data && JSON.parse(fields.data), retry };
}

/**
 * A stream's bytes, in whatever pieces -> its frames, as they become whole.
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>} bytes
 * @returns {AsyncGenerator<Frame>}
 */
export async function* frames(bytes) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of pieces(bytes)) {
    const blocks = (rest + decoder.decode(piece, { stream: true })).split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const frame = parse(block);
      if (frame) yield frame;
    }
  }
}

/**
 * Safari can't iterate a stream.
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>} bytes
 * @returns {AsyncGenerator<Uint8Array>}
 */
async function* pieces(bytes) {
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
