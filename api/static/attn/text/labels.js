// Kinds, reasons and times in words. Pure: now is an argument.

/** @typedef {import("../types").Item} Item */

/** @type {Record<string, {name: string, verb: string, icon: string}>} `verb`: what its source wants of a person. */
export const KINDS = {
  waitpoint: { name: "Waitpoint", verb: "Approve or reject", icon: "pause" },
  escalation: { name: "Escalation", verb: "Take a look", icon: "escalate" },
  failed_run: { name: "Failed run", verb: "Investigate", icon: "failed" },
  incident: { name: "Incident", verb: "Investigate", icon: "incident" },
  message: { name: "Message", verb: "Read", icon: "message" },
  session_waiting: { name: "Question", verb: "Answer", icon: "question" },
  plan_approval: { name: "Plan", verb: "Review the plan", icon: "plan" },
  pending_action: { name: "Action", verb: "Confirm or decline", icon: "action" },
  draft_review: { name: "Draft", verb: "Review the draft", icon: "draft" },
  blocked_case: { name: "Blocked case", verb: "Unblock", icon: "case" },
  blocked_task: { name: "Blocked task", verb: "Unblock", icon: "task" },
  verifying_no_proof: { name: "Missing proof", verb: "Attach a proof", icon: "proof" },
  proof_expiring: { name: "Expiring proof", verb: "Renew the proof", icon: "expiring" },
};

/** Kinds that their source closes, as attn is set up by default; where it is not, the edge says so with a 409. */
export const MANAGED = new Set(["waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"]);

/** @param {string} kind */
export const kindLabel = (kind) => KINDS[kind] ?? { name: kind.replaceAll("_", " "), verb: "Open", icon: "message" };

const MINUTE = 60, HOUR = 3600, DAY = 86400;

/**
 * A length of time, short: `40 s`, `12 min`, `3 h 20`, `2 d 4 h`.
 * @param {number} seconds
 */
export function formatDuration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min`;
  const hours = Math.floor(whole / HOUR), minutes = Math.floor((whole % HOUR) / MINUTE);
  if (whole < DAY) return hours < 6 && minutes ? `${hours} h ${String(minutes).padStart(2, "0")}` : `${hours} h`;
  const days = Math.floor(whole / DAY), rest = Math.floor((whole % DAY) / HOUR);
  return days < 7 && rest ? `${days} d ${rest} h` : `${days} d`;
}

/**
 * @param {string} time RFC 3339
 * @param {number} now milliseconds
 */
export const secondsSince = (time, now) => (now - Date.parse(time)) / 1000;

/**
 * How long it waits, short.
 * @param {string} time
 * @param {number} now
 */
export function formatAge(time, now) {
  const seconds = secondsSince(time, now);
  return seconds < 5 ? "a moment" : formatDuration(seconds);
}

/**
 * How near its end it is; no text where it has none.
 * @param {Item} item
 * @param {number} now
 * @returns {{text: string, tone: "late" | "soon" | "calm"}}
 */
export function due(item, now) {
  if (Number.isNaN(Date.parse(item.due_at))) return { text: "", tone: "calm" };
  const left = -secondsSince(item.due_at, now);
  if (left <= 0) return { text: `${formatDuration(-left)} late`, tone: "late" };
  return { text: `due in ${formatDuration(left)}`, tone: left < 15 * MINUTE ? "soon" : "calm" };
}

/** @type {Record<string, string>} */
const REASONS = {
  urgent: "urgent", high: "high priority", normal: "normal priority", low: "low priority",
  overdue: "overdue, so one band higher", blocking: "other work waits for it", pinned: "in a cluster you pinned",
};

/**
 * Why it is where it is, as a sentence.
 * @param {Item} item
 */
export function explainRank(item) {
  const [band, ...rest] = item.rank_reasons;
  const said = [REASONS[band] ?? band, ...rest.map((one) => REASONS[one] ?? one)];
  return `Rank: ${said.join(", ")}; then by due time.`;
}

/**
 * @param {string} time
 * @param {Intl.DateTimeFormatOptions} [how]
 */
export function formatTime(time, how = { dateStyle: "medium", timeStyle: "short" }) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? String(time) : new Intl.DateTimeFormat(undefined, how).format(at);
}

const DIRECTIONS = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/g; // characters that set the direction of text
const RIGHT_TO_LEFT = /[\u0590-\u08FF\u200E\u200F\u202A-\u202E\u2066-\u2069\uFB1D-\uFDFF\uFE70-\uFEFC\u{10800}-\u{10FFF}\u{1E800}-\u{1EFFF}]/u;

/**
 * Isolates the direction of foreign text within plain text (a message, a tooltip, a notification). In markup `<bdi>` and
 * `dir="auto"` do this.
 * @param {string} text
 */
export const isolate = (text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${text.replace(DIRECTIONS, "")}\u2069` : text);

/**
 * Cuts a text to `most` characters.
 * @param {string} text
 * @param {number} most characters
 */
export const truncate = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** @type {Record<string, string>} Why an item went, as the feed says it. */
export const REMOVAL_REASONS = {
  resolved: "resolved", dismissed: "dismissed by you", snoozed: "snoozed", retargeted: "addressed to someone else",
  grouped: "grouped into an incident", beyond: "moved down the list",
};
