// All tabs of a browser share one connection. Who holds the lock leads: it follows the feed and passes every frame on.
// Each tab folds for itself, so when the leader closes, the next one goes on from its own cursor and misses nothing.
import { apply, EMPTY } from "../fold.js";
import { CONNECTING, follow } from "./connection.js";

/** @typedef {import("../types").Inbox} Inbox */
/** @typedef {import("../types").Frame} Frame */
/** @typedef {import("./connection.js").Link} Link */

const NAME = "attn-feed";

/**
 * @param {object} how
 * @param {number} how.limit
 * @param {(inbox: Inbox, frames: Frame[]) => void} how.changed
 * @param {(link: Link, leads: boolean) => void} how.status
 * @param {() => void} how.elsewhere another tab signed in or out
 */
export function share({ limit, changed, status, elsewhere }) {
  /** @type {Inbox} */
  let inbox = EMPTY;
  let leads = false;
  /** @type {Link} */
  let link = CONNECTING;
  const ending = new AbortController();
  const wake = new EventTarget();
  const others = new BroadcastChannel(NAME);

  /** @param {Link} now */
  const linked = (now) => status((link = now), leads);
  /** @param {Frame[]} some */
  const fold = (some) => {
    const was = inbox;
    inbox = some.reduce(apply, inbox);
    if (inbox !== was) changed(inbox, some);
  };

  others.onmessage = ({ data }) => {
    if (data.says === "session") elsewhere();
    else if (data.says === "wake") wake.dispatchEvent(new Event("wake"));
    else if (leads) {
      if (data.says === "hello") others.postMessage({ says: "state", inbox, link });
    } else if (data.says === "state") {
      if (Number(data.inbox.cursor ?? -1) > Number(inbox.cursor ?? -1)) changed((inbox = data.inbox), []);
      linked(data.link);
    } else if (data.says === "frames") fold(data.frames);
    else if (data.says === "link") linked(data.link);
  };

  const lead = async () => {
    leads = true;
    linked(CONNECTING);
    others.postMessage({ says: "state", inbox, link });
    await follow({
      limit, signal: ending.signal, wake, cursor: () => inbox.cursor,
      tell: (some) => {
        fold(some);
        others.postMessage({ says: "frames", frames: some });
      },
      status: (now) => {
        linked(now);
        others.postMessage({ says: "link", link: now });
      },
    });
    leads = false;
  };

  others.postMessage({ says: "hello" });
  // Without locks (not a secure context) every tab is on its own.
  if (navigator.locks) navigator.locks.request(NAME, { signal: ending.signal }, lead).catch(() => {});
  else lead();

  return {
    /** Try now: somebody is looking, or the network is back. */
    wake() {
      wake.dispatchEvent(new Event("wake"));
      others.postMessage({ says: "wake" });
    },
    /** Tell the other tabs that the session is another one now. */
    sessionChanged: () => others.postMessage({ says: "session" }),
    close() {
      ending.abort();
      others.close();
    },
  };
}
