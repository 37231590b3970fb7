// Shares one feed connection among all tabs of a browser. The tab that holds the Web Lock is the leader: it follows the feed
// and broadcasts every frame. Each tab applies the frames itself. When the leader closes, the next tab resumes at its own
// cursor and misses no frame.
import { apply, EMPTY } from "../fold.js";
import { CONNECTING, followFeed } from "./connection.js";

/** @typedef {import("../types").Inbox} Inbox */
/** @typedef {import("../types").Frame} Frame */
/** @typedef {import("./connection.js").Link} Link */

const CHANNEL = "attn-feed";

/**
 * Joins the tabs that share the connection.
 * @param {object} how
 * @param {number} how.limit items in the window
 * @param {(inbox: Inbox, frames: Frame[]) => void} how.onFrames
 * @param {(link: Link, leads: boolean) => void} how.onLink
 * @param {() => void} how.onSessionChange called when another tab signed in or out
 */
export function shareFeed({ limit, onFrames, onLink, onSessionChange }) {
  /** @type {Inbox} */
  let inbox = EMPTY;
  let isLeader = false;
  /** @type {Link} */
  let link = CONNECTING;
  const ending = new AbortController();
  const wake = new EventTarget();
  const others = new BroadcastChannel(CHANNEL);

  /** @param {Link} now */
  const setLink = (now) => onLink((link = now), isLeader);
  /** @param {Frame[]} frames */
  const fold = (frames) => {
    const was = inbox;
    inbox = frames.reduce(apply, inbox);
    if (inbox !== was) onFrames(inbox, frames);
  };

  others.onmessage = ({ data }) => {
    if (data.says === "session") onSessionChange();
    else if (data.says === "wake") wake.dispatchEvent(new Event("wake"));
    else if (isLeader) {
      if (data.says === "hello") others.postMessage({ says: "state", inbox, link });
    } else if (data.says === "state") {
      if (Number(data.inbox.cursor ?? -1) > Number(inbox.cursor ?? -1)) onFrames((inbox = data.inbox), []);
      setLink(data.link);
    } else if (data.says === "frames") fold(data.frames);
    else if (data.says === "link") setLink(data.link);
  };

  const lead = async () => {
    isLeader = true;
    setLink(CONNECTING);
    others.postMessage({ says: "state", inbox, link });
    await followFeed({
      limit, signal: ending.signal, wake, cursor: () => inbox.cursor,
      onFrames: (frames) => {
        fold(frames);
        others.postMessage({ says: "frames", frames });
      },
      onLink: (now) => {
        setLink(now);
        others.postMessage({ says: "link", link: now });
      },
    });
    isLeader = false;
  };

  others.postMessage({ says: "hello" });
  // Without Web Locks (no secure context) every tab has its own connection.
  if (navigator.locks) navigator.locks.request(CHANNEL, { signal: ending.signal }, lead).catch(() => {});
  else lead();

  return {
    /** Reconnects now: the user looks at the page, or the network is back. */
    wake() {
      wake.dispatchEvent(new Event("wake"));
      others.postMessage({ says: "wake" });
    },
    /** Notifies the other tabs that the session has changed. */
    sessionChanged: () => others.postMessage({ says: "session" }),
    close() {
      ending.abort();
      others.close();
    },
  };
}
