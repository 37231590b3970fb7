// The browser's side of the feed: frames -> ranked copy of the inbox (docs/behaviour.md: The feed).

/** Keeps a copy of the inbox. `apply(event, data)` with each frame; `items()` is the ranked list. */
export class Copy {
  #items = new Map();
  counts = { total: 0, unread: 0, by_kind: {}, by_priority: {} };
  activity = null;
  drafts = [];
  preferences = null;

  apply(event, data) {
    if (event === "snapshot") {
      this.#items = new Map(data.items.map((item) => [item.id, item]));
      for (const name of ["counts", "activity", "drafts", "preferences"]) this[name] = data[name];
    } else if (event === "added" || event === "changed") {
      this.#items.set(data.item.id, data.item);
      this.counts = data.counts;
    } else if (event === "removed") {
      this.#items.delete(data.id);
      this.counts = data.counts;
    } else if (["activity", "drafts", "preferences"].includes(event)) {
      this[event] = data;
    }
  }

  items() {
    const before = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return [...this.#items.values()].sort((a, b) => before(a.rank, b.rank) || before(a.id, b.id));
  }
}

/** Frames of a feed, for as long as its response lasts: {id, event, data}. EventSource can't send a token. */
export async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (fields.data) yield { id: fields.id, event: fields.event ?? "message", data: JSON.parse(fields.data) };
    }
  }
}
