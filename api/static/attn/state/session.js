// Signing in and out. Both are checked: a browser drops some cookies without an error, and keeps some that attn can't delete.
import { ask, cookie, explain, ok } from "../http.js";

/** @typedef {import("../types").Me} Me */

const LEFT = () => `Delete the cookies of ${location.hostname} and of its parent domains in the settings of the browser.`;

/** @param {import("../http.js").Answer} answer */
const said = (answer) => answer.data?.error ? `attn says: ${answer.data.error}.` : explain(answer);

/**
 * @param {string} token
 * @returns {Promise<{me: Me | null, problem: string}>} who is signed in, or why nobody is
 */
export async function start(token) {
  const answer = await ask("POST", "/auth/session", { token });
  if (answer.status === 401) return { me: null, problem: `This token is not good: ${answer.data?.error ?? "refused"}.` };
  if (!ok(answer)) return { me: null, problem: [400, 403, 413].includes(answer.status) ? said(answer) : explain(answer) };
  const check = await ask("GET", "/org/me");
  if (check.status === 401) return { me: null, problem: cookie("attn_csrf") ? `attn accepted the token, then refused the session. ${said(check)}` : dropped() };
  if (ok(check) && !same(check.data, answer.data)) {
    return { me: null, problem: `The browser kept an older session, of ${check.data.user_id}. ${LEFT()}` };
  }
  return { me: answer.data, problem: "" };
}

/** @returns {Promise<string>} why somebody is still signed in, or "" */
export async function end() {
  const answer = await ask("DELETE", "/auth/session");
  if (answer.status === 0 || answer.status >= 500) return "attn does not answer, so you are still signed in. Try again.";
  if (!ok(answer)) return `You are still signed in. ${said(answer)}`;
  const check = await ask("GET", "/org/me");
  return ok(check) ? `You are still signed in: the browser keeps another session cookie, which attn can't delete. ${LEFT()}` : "";
}

const dropped = () => "attn accepted the token, but the browser did not keep the session cookie. "
  + `Allow cookies for ${location.hostname}${location.protocol === "http:" ? ", and open attn over https or as localhost" : ""}.`;

/** @param {Me} one @param {Me} other */
const same = (one, other) => one.user_id === other.user_id && one.workspace_id === other.workspace_id && one.role === other.role;
