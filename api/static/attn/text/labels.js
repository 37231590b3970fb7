// Labels of kinds, ranks, reasons and times. Pure: the current time is an argument.

/** @typedef {import("../types").Item} Item */

/** @type {Record<string, {name: string, verb: string, icon: string}>} `verb`: what the user should do at the source. */
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

/** Kinds that only their source closes, by the default of ATTN_SOURCE_MANAGED_KINDS; the edge answers 409 for its own setting. */
export const MANAGED = new Set(["waitpoint", "escalation", "plan_approval", "pending_action", "session_waiting"]);

/** @param {string} kind */
export const kindLabel = (kind) => KINDS[kind] ?? { name: kind.replaceAll("_", " "), verb: "Open", icon: "message" };

const MINUTE = 60, HOUR = 3600, DAY = 86400;

/**
 * Formats a duration: `40 s`, `12 min`, `3 h 20`, `2 d 4 h`.
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
 * Returns the seconds since a time.
 * @param {string} time RFC 3339
 * @param {number} now milliseconds
 */
export const secondsSince = (time, now) => (now - Date.parse(time)) / 1000;

/**
 * Formats the time since a moment.
 * @param {string} time
 * @param {number} now
 */
export function formatAge(time, now) {
  const seconds = secondsSince(time, now);
  return seconds < 5 ? "a moment" : formatDuration(seconds);
}

/**
 * Returns the due label of an item; the text is empty without a due time.
 * @param {Item} item
 * @param {number} now
 * @returns {{text: string, tone: "late" | "soon" | "calm"}}
 */
export function due(item, now) {
  if (item.due_at === undefined || Number.isNaN(Date.parse(item.due_at))) return { text: "", tone: "calm" };
  const left = -secondsSince(item.due_at, now);
  if (left <= 0) return { text: `${formatDuration(-left)} late`, tone: "late" };
  return { text: `due in ${formatDuration(left)}`, tone: left < 15 * MINUTE ? "soon" : "calm" };
}

/** @type {Record<string, string>} */
const REASONS = {
  urgent: "urgent", high: "high priority", normal: "normal priority", low: "low priority",
  refused: "its source refused the decision", undeliverable: "the decision could not be delivered", unconfirmed: "its source has not confirmed the decision",
  overdue: "overdue, so one band higher", blocking: "other work waits for it", pinned: "in a cluster you pinned",
};

/**
 * Returns the reasons of the rank as a sentence.
 * @param {Item} item
 */
export function explainRank(item) {
  const [band, ...rest] = item.rank_reasons;
  const reasons = [REASONS[band] ?? band, ...rest.map((one) => REASONS[one] ?? one)];
  return `Rank: ${reasons.join(", ")}; then by due time.`;
}

/**
 * Formats a time in the user's locale; returns an invalid time unchanged.
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
 * Truncates a text to `most` characters.
 * @param {string} text
 * @param {number} most characters
 */
export const truncate = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

/**
 * Returns a number with its noun in singular or plural.
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** @type {Record<string, string>} Label of the removal reason of the feed. */
export const REMOVAL_REASONS = {
  resolved: "resolved", decided: "decided", dismissed: "dismissed by you", snoozed: "snoozed", retargeted: "addressed to someone else",
  grouped: "grouped into an incident", beyond: "moved down the list",
};
