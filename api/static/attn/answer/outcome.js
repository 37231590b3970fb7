// What became of a decision, and what the edge answered to one, as texts. Pure.
import { optionDone } from "./option_keys.js";
import { formatMoment, decidersText, listed, short, sourceName, voter } from "./question.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Me} Me */
/** @typedef {import("../types").Decision} Decision */
/** @typedef {import("../http.js").Answer} Answer */
/** @typedef {{tone: "good" | "wait" | "bad" | "calm", text: string, detail: string, left: number}} Outcome `left`: seconds in which it can be taken back */

const LONG_REASON = 2000; // characters of a source's reason

/**
 * Returns the seconds left to take a decision back; never more than there were, however wrong the clock is.
 * @param {Pick<Decision, "state" | "at" | "undo_until">} decision
 * @param {number} now milliseconds
 */
export function secondsToUndo({ state, at, undo_until: until }, now) {
  const all = Date.parse(until) - Date.parse(at), left = Math.min(all, Date.parse(until) - now);
  return state === "made" ? Math.max(0, Math.ceil(left / 1000)) || 0 : 0;
}

/** Whether the reader is one of the people who decided. @param {Pick<Decision, "actors">} decision @param {Me | null} me */
export const isOwn = ({ actors }, me) => Boolean(me) && (actors ?? []).some((actor) => actor.user === me?.user_id);

/** Whether nothing will change a decision any more. @param {Pick<Decision, "state">} decision */
export const isFinal = ({ state }) => state === "applied" || state === "taken_back" || state === "expired";

/**
 * Returns who decided what and when: `approved by you and ada at 14:02`.
 * @param {Decision} decision
 * @param {Item} item
 * @param {Me | null} me
 * @param {number} now
 */
export function whoDid(decision, item, me, now) {
  const done = decision.option ? optionDone(decision.option, decision.does, item.ask?.options ?? []) : "closed without an answer";
  const names = (decision.actors ?? []).map((actor) => voter(actor, me));
  return `${done} by ${names.length ? listed(names) : "its time limit"} at ${formatMoment(decision.at, now)}`;
}

/** Returns the reason of a decision as the end of a sentence. @param {Pick<Decision, "reason">} decision */
const because = ({ reason }) => (reason ? `: ${short(reason, LONG_REASON)}` : "");

/**
 * Describes the decision of an item.
 * @param {Item} item
 * @param {Me | null} me
 * @param {number} now
 * @returns {Outcome | null}
 */
export function outcome(item, me, now) {
  const { decision } = item;
  if (!decision) return null;
  const source = sourceName(item), detail = sentence(whoDid(decision, item, me, now)), own = isOwn(decision, me);
  const by = own ? "Decided by you" : "Decided";
  const left = own ? secondsToUndo(decision, now) : 0;
  if (decision.returned === "unconfirmed") return { tone: "bad", text: `Not confirmed: ${source} has not said whether it took effect.`, detail, left: 0 };
  switch (decision.state) {
    case "made": {
      const waits = secondsToUndo(decision, now);
      return { tone: "wait", text: waits > 0 ? `${by}. It goes to ${source} in ${waits} s.` : `${by}, waiting to be sent to ${source}.`, detail, left };
    }
    case "sending": return { tone: "wait", text: `${by}, waiting for ${source} to take it.`, detail, left: 0 };
    case "applied": return { tone: "good", text: `Applied: ${source} has taken it.`, detail, left: 0 };
    case "refused": return { tone: "bad", text: `Refused by ${source}${because(decision)}`, detail, left: 0 };
    case "undeliverable": return { tone: "bad", text: `It could not be delivered to ${source}${because(decision)}`, detail, left: 0 };
    case "taken_back": return { tone: "calm", text: "The answer was taken back; the question is open again.", detail, left: 0 };
    case "expired": return { tone: "calm", text: "It expired before anybody answered.", detail: "", left: 0 };
    default: return { tone: "calm", text: `State: ${short(String(decision.state))}`, detail, left: 0 };
  }
}

/** Returns the address of the signed receipt of a decision. @param {string} item @param {string} decision */
export const receiptPath = (item, decision) => `/api/v1/inbox/${encodeURIComponent(item)}/decision/receipt?decision=${encodeURIComponent(decision)}`;

/** @type {Record<string, string>} Short name of each state. */
export const STATES = {
  made: "decided", sending: "sending", applied: "applied", refused: "refused", undeliverable: "not delivered", unconfirmed: "not confirmed",
  taken_back: "taken back", expired: "expired",
};

/** Begins a text with a capital letter and ends it with a full stop. @param {string} text */
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? "" : "."}`;

/**
 * Explains why an answer was not taken, with what the reader can do.
 * @param {Answer} answer
 * @param {Item} item
 * @param {Me | null} me
 * @param {number} now
 */
export function explainAnswer({ status, data, wait }, item, me, now) {
  switch (status) {
    case 0: case 503: return "attn has not confirmed your answer. Try again: it counts once, however often you send it.";
    case 401: return "Your session has ended. Sign in again; your text is kept in this tab.";
    case 403: if (data?.sign_in) return `Not sent: ${short(data.error)}. Open ${location.origin}${data.sign_in}, then answer again; your text is kept.`;
      return data?.error?.includes("csrf") || data?.error?.includes("CSRF") ? "The request did not carry the CSRF value of your session. Reload the page; your text is kept."
      : `You may not decide this. It is decided by ${decidersText(item, me) || "others"}.`;
    case 404: return "The question does not exist any more, or it is no longer addressed to you.";
    case 409: return data?.decision ? `Not sent, because it was already decided: ${whoDid(data.decision, item, me, now)}.` : `Not sent: ${short(data?.error ?? "it was already decided")}.`;
    case 410: return `Not sent: ${gone(data)}.`;
    case 412: return "Not sent, because the question has changed. Read it again; your text is kept.";
    case 413: return "Your answer is larger than attn accepts. Shorten it.";
    case 422: return "Some entries do not fit. Correct the marked ones.";
    case 429: return `Too many changes at once. Try again in ${wait === null ? "a moment" : `${wait} s`}.`;
    default: return data?.error ? `attn says: ${short(data.error)}` : `attn answered with HTTP status ${status}.`;
  }
}

/** @param {any} data */
function gone(data) {
  if (data?.decision?.state === "expired") return "its time ran out";
  return data?.error ? short(data.error) : "the question has expired or was withdrawn";
}

/**
 * Returns where the reader signs in anew to decide this, and comes back to the item; "" if that is not why an answer was refused.
 * @param {Answer} answer
 * @param {Pick<Item, "id">} item
 */
export function signInAgain({ status, data }, { id }) {
  if (status !== 403 || typeof data?.sign_in !== "string" || !data.sign_in.startsWith("/auth/login?")) return "";
  return `${data.sign_in}&return_to=${encodeURIComponent(`/#item=${encodeURIComponent(id)}`)}`;
}

/**
 * Distributes the errors of a 422 to the fields that are shown; the others are listed above the form.
 * @param {unknown} fields
 * @param {ReadonlySet<string>} shown paths with a field on screen
 * @returns {{byField: Record<string, string>, others: string[]}}
 */
export function fieldErrors(fields, shown) {
  /** @type {Record<string, string>} */
  const byField = {};
  /** @type {string[]} */
  const others = [];
  for (const [path, text] of Object.entries(fields && typeof fields === "object" ? fields : {})) {
    if (shown.has(path)) byField[path] = sentence(String(text));
    else others.push(`${short(path)}: ${short(String(text))}`);
  }
  return { byField, others };
}
