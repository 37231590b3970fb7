// A plain page on the live feed, for trying things out.
import { Copy, frames } from "./feed.js";

const find = (id) => document.getElementById(id);
const copy = new Copy();
let running = null;

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text; // never markup: titles come from anywhere
  return made;
}

function show() {
  find("counts").textContent = `${copy.counts.total} open, ${copy.counts.unread} unread`;
  find("list").replaceChildren(...copy.items().map((item) => {
    const row = element("li", "");
    row.dataset.band = item.band;
    const where = [item.kind, item.cluster, item.stack, item.sender_name].filter(Boolean).join(" · ");
    row.append(element("b", item.title), element("small", `${where} — ${item.rank_reasons.join(", ")} — due ${item.due_at}`));
    return row;
  }));
}

async function follow(token, signal) {
  let last = null;
  while (!signal.aborted) {
    let pause = 1000 + Math.random() * 1000; // not everybody at once
    try {
      const headers = { authorization: `Bearer ${token}` };
      if (last !== null) headers["last-event-id"] = last;
      const response = await fetch("/org/me/feed", { headers, signal, cache: "no-store" });
      if (!response.ok) {
        find("status").textContent = (await response.json()).error;
        if (response.status === 401) return;
        pause = 1000 * Number(response.headers.get("retry-after") ?? 2);
      } else {
        find("status").textContent = "live";
        for await (const frame of frames(response)) {
          last = frame.id;
          copy.apply(frame.event, frame.data);
          if (frame.event !== "heartbeat") requestAnimationFrame(show);
        }
        find("status").textContent = "reconnecting";
      }
    } catch (error) {
      if (signal.aborted) return;
      find("status").textContent = "disconnected, trying again";
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

find("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  running?.abort();
  running = new AbortController();
  follow(find("token").value.trim(), running.signal);
  find("token").value = "";
});
