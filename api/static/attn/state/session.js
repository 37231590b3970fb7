// Signs in and out, and verifies both with GET /org/me: a browser drops some cookies without an error, and keeps some cookies
// that attn cannot delete.
import { request, readCookie, explain, ok } from "../http.js";

/** @typedef {import("../types").Me} Me */

const deleteCookiesHint = () => `Delete the cookies of ${location.hostname} and of its parent domains in the settings of the browser.`;

/** Returns the error text of the edge, or else the general one. @param {import("../http.js").Answer} answer */
const serverError = (answer) => answer.data?.error ? `attn says: ${answer.data.error}.` : explain(answer);

/**
 * @param {string} token
 * @returns {Promise<{me: Me | null, problem: string}>} the user, or why signing in failed
 */
export async function createSession(token) {
  const answer = await request("POST", "/auth/session", { token });
  if (answer.status === 401) return { me: null, problem: `The token was rejected: ${answer.data?.error ?? "no reason given"}.` };
  if (!ok(answer)) return { me: null, problem: [400, 403, 413].includes(answer.status) ? serverError(answer) : explain(answer) };
  const check = await request("GET", "/org/me");
  if (check.status === 401) return { me: null, problem: readCookie("attn_csrf") ? `attn accepted the token, then refused the session. ${serverError(check)}` : cookieDropped() };
  if (ok(check) && !same(check.data, answer.data)) {
    return { me: null, problem: `The browser kept an older session, of ${check.data.user_id}. ${deleteCookiesHint()}` };
  }
  return { me: answer.data, problem: "" };
}

/**
 * @param {boolean} own whether the session is attn's own
 * @returns {Promise<{problem: string, elsewhere?: string}>} why the browser is still signed in, or ""; where it signs out at the issuer
 */
export async function endSession(own) {
  const answer = own ? await request("POST", "/auth/logout") : await request("DELETE", "/auth/session");
  if (answer.status === 0 || answer.status >= 500) return { problem: "attn does not answer, so you are still signed in. Try again." };
  if (!ok(answer)) return { problem: `You are still signed in. ${serverError(answer)}` };
  const check = await request("GET", "/org/me");
  const problem = ok(check) ? `You are still signed in: the browser keeps another session cookie, which attn can't delete. ${deleteCookiesHint()}` : "";
  return { problem, elsewhere: answer.data?.logout_url };
}

const cookieDropped = () => "attn accepted the token, but the browser did not keep the session cookie. "
  + `Allow cookies for ${location.hostname}${location.protocol === "http:" ? ", and open attn over https or as localhost" : ""}.`;

/** @param {Me} one @param {Me} other */
const same = (one, other) => one.user_id === other.user_id && one.workspace_id === other.workspace_id && one.role === other.role;
