// Sign-in links: the page of `#signin=TEXT` posts the text, which opens a session. A fragment is in no request and in no log of a
// server. A GET signs nobody in: programs that look at links must not use them up.
import { request, explain, ok } from "../http.js";

const PREFIX = "#signin=";

/** Returns the text of the link in the address, or "", and removes it from the address and from the history. */
export function takeLink() {
  if (!location.hash.startsWith(PREFIX)) return "";
  const link = location.hash.slice(PREFIX.length);
  history.replaceState(null, "", location.pathname + location.search);
  return link;
}

/**
 * Signs in by a link, unless the browser has a session: a link from somebody else must not replace it.
 * @param {string} link
 * @returns {Promise<string>} why it failed, or ""
 */
export async function redeemLink(link) {
  if (ok(await request("GET", "/org/me"))) return "";
  const answer = await request("POST", "/auth/link", { link });
  if (ok(answer)) return "";
  return answer.data?.error && answer.status < 500 ? `attn says: ${answer.data.error}.` : explain(answer);
}
