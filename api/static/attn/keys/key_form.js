// The form of a new key: checks, request body, and the curl line that sends a first event. Pure.
import { formatAge, formatTime } from "../text/labels.js";

/** @typedef {import("../types").SourceKey} SourceKey */
/** @typedef {import("../http.js").Answer} Answer */
/** @typedef {{name: string, topics: readonly string[], source: string, expiry: string, date: string}} Values `expiry`: days, "never" or "date"; `date`: YYYY-MM-DD in local time */
/** @typedef {Partial<Record<"name" | "topics" | "source" | "date", string>>} Problems texts by field */

/** The topics that a key can name: their description, and the event of the curl line. @type {Record<string, {name: string, type: string, title: string}>} */
export const TOPICS = {
  waitpoints: { name: "approvals", type: "waitpoint.created", title: "Review production deploy" },
  escalations: { name: "escalations", type: "escalation.opened", title: "Refund above the limit" },
  "run-failures": { name: "failed runs", type: "run.failed", title: "Backup failed" },
  messages: { name: "messages", type: "message.posted", title: "The weekly report is ready" },
  sessions: { name: "agents that wait for an answer", type: "session.waiting", title: "Which token lifetime?" },
  plans: { name: "plans to approve", type: "plan.proposed", title: "Upgrade the nodes" },
  actions: { name: "actions to confirm", type: "action.requested", title: "Delete the old volume" },
  drafts: { name: "drafts to review", type: "draft.edited", title: "Raise the memory limits" },
  cases: { name: "cases, tasks and proofs", type: "task.blocked", title: "Waiting for the sandbox" },
};

/** What an event needs besides its title. @type {Record<string, object>} */
const REQUIRED = { "task.blocked": { case_id: "first" }, "draft.edited": { editor: { type: "ai", id: "first" } } };

/** @type {Record<string, string>} */
export const EXPIRIES = { 30: "in 30 days", 90: "in 90 days", 365: "in a year", date: "at the end of a day", never: "never" };

/** @type {Values} */
export const NO_VALUES = Object.freeze({ name: "", topics: [], source: "", expiry: "90", date: "" });

const DAY_MS = 86_400_000, LONGEST_NAME = 200, LONGEST_SOURCE = 2000; // the limits of the edge, in code points

/**
 * Returns when the new key expires, in milliseconds; null: never. NaN without a valid date.
 * @param {Values} values
 * @param {number} now milliseconds
 */
export function expiryTime({ expiry, date }, now) {
  if (expiry === "never") return null;
  if (expiry !== "date") return now + Number(expiry) * DAY_MS;
  const [year, month, day] = date.split("-").map(Number);
  return date ? new Date(year, month - 1, day + 1).getTime() : NaN;
}

/**
 * Returns what is wrong with the values, as texts by field; empty if the edge would accept them.
 * @param {Values} values
 * @param {number} now milliseconds
 * @returns {Problems}
 */
export function problemsOf(values, now) {
  /** @type {Problems} */
  const problems = {};
  if (!values.name.trim()) problems.name = "Enter a name.";
  else if ([...values.name.trim()].length > LONGEST_NAME) problems.name = `At most ${LONGEST_NAME} characters.`;
  if (!values.topics.length) problems.topics = "Choose at least one topic.";
  if ([...values.source.trim()].length > LONGEST_SOURCE) problems.source = `At most ${LONGEST_SOURCE} characters.`;
  const expires = expiryTime(values, now);
  if (expires !== null && !(expires > now)) problems.date = "Choose a day that is not over.";
  return problems;
}

/**
 * Returns the body of `POST /org/me/keys`.
 * @param {Values} values
 * @param {number} now milliseconds
 */
export function requestBody(values, now) {
  const expires = expiryTime(values, now), source = values.source.trim();
  return {
    name: values.name.trim(), topics: [...values.topics], ...(source && { source }),
    ...(expires !== null && { expires_at: new Date(expires).toISOString() }),
  };
}

/** Quotes a text for a POSIX shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * Returns a command line that sends a first event with the key.
 * @param {string} origin of attn, such as `https://attn.example.com`
 * @param {string} secret text of the key
 * @param {Pick<SourceKey, "id" | "topics" | "source">} key
 * @param {number} now milliseconds
 */
export function curlLine(origin, secret, { id, topics, source }, now) {
  const { type, title } = TOPICS[topics[0]] ?? TOPICS.messages;
  const event = {
    specversion: "1.0", id: `first-${id}`, source: source ?? "/first", type, subject: `first-${id}`,
    time: new Date(now).toISOString(), data: { title, ...REQUIRED[type] },
  };
  return `curl -i ${origin}/events -H 'Authorization: Bearer ${secret}' -H 'Content-Type: application/cloudevents+json' -d ${quoted(JSON.stringify(event))}`;
}

/** Whether the key has expired. @param {SourceKey} key @param {number} now */
export const hasExpired = ({ expires_at: at }, now) => at !== undefined && Date.parse(at) <= now;

/**
 * Returns what the list says about a key: who created it, its expiry, its last use.
 * @param {SourceKey} key
 * @param {number} now milliseconds
 */
export function aboutKey(key, now) {
  const expires = key.expires_at === undefined ? "never expires" : `${hasExpired(key, now) ? "expired" : "expires"} ${formatTime(key.expires_at)}`;
  // The edge keeps the hour of the last use.
  const hour = key.last_used === undefined ? NaN : now - Date.parse(key.last_used);
  const used = Number.isNaN(hour) ? "not used yet" : hour < 2 * 3_600_000 ? "used within the last two hours" : `last used ${formatAge(/** @type {string} */ (key.last_used), now)} ago`;
  return { created: formatTime(key.created_at), expires, used };
}

/**
 * Returns why a request about keys failed.
 * @param {Answer} answer
 * @returns {string}
 */
export function explainKeys({ status, data, wait }) {
  switch (status) {
    case 0: return "attn did not answer, so nothing is confirmed. Try again: the same request counts once.";
    case 401: return "Your session has ended. Sign in again.";
    case 404: return "The key does not exist any more.";
    case 429: return `Too many changes at once. Try again in ${wait === null ? "a moment" : `${wait} s`}.`;
    case 503: return "attn could not confirm the change in time. Try again: the same request counts once.";
    default: return typeof data?.error === "string" ? `attn says: ${data.error}.` : `attn answered with HTTP status ${status}.`;
  }
}
