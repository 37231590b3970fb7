// Questions, answers and the events that ask them. Pure, except for the hash.
//
// A question has a handle: a hash of source, subject and content. It is the `id` of the ask and of the event, therefore a
// repeat of the same question is the same event, and attn counts it once.
import { stringify } from "./page/exact.js";

/** @typedef {import("./page/types").Option} AskOption */
/** @typedef {import("./page/types").Does} Does */
/** @typedef {import("./page/types").Action} Action */
/** @typedef {import("./page/types").Form} Form */
/** @typedef {import("./page/types").DecisionRow} DecisionRow */
/** @typedef {import("./page/types").Item} Item */
/** @typedef {"waitpoint" | "pending_action" | "session_waiting" | "plan_approval"} Kind */

/**
 * What a person is asked. Only `title` is required.
 * @typedef {object} Question
 * @property {string} title
 * @property {string} [body] Markdown
 * @property {(AskOption | string)[]} [options] options, or their ids: "approve" does what it says, any other id is a choice
 * @property {Form} [form] a flat JSON Schema object
 * @property {Action} [action] what will be done
 * @property {string} [subject] the question's own id in your system. Without it the content identifies the question until
 *   its answer was confirmed
 * @property {Kind} [kind] default: "waitpoint"
 * @property {"low" | "normal" | "high" | "urgent"} [priority]
 * @property {string} [toUser]
 * @property {string} [toRole]
 * @property {import("./page/types").Ask["deciders"]} [deciders]
 * @property {number} [quorum] how many people must agree
 * @property {Date | number} [expires] a time, or milliseconds from now
 * @property {string} [onExpiry] id of an option that is marked `safe`
 * @property {string} [batch]
 * @property {Record<string, unknown>} [data] further fields of the event
 */

/**
 * What was decided. `decision` is the id of the decision, the same for each repeat of the answer: store it with the effect.
 * @typedef {object} Answer
 * @property {string} decision
 * @property {string} subject
 * @property {string} kind
 * @property {string} option id of the chosen option
 * @property {Does | ""} does
 * @property {boolean} approved whether the option approves, edits included
 * @property {Record<string, any>} form
 * @property {Record<string, any> | null} args all arguments of an edited action
 * @property {string[]} edited JSON pointers of the arguments that a person changed
 * @property {string | null} comment
 * @property {string | null} by the user whose vote made the decision
 * @property {boolean} confirmed whether attn knows that it took effect
 * @property {DecisionRow} raw
 */

const DOES = ["approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"];

/** Kind of item -> topic, the type that opens it, the type that withdraws it (CONTRACT §2).
 * @type {Record<string, [string, string, string]>} */
export const KINDS = {
  waitpoint: ["waitpoints", "waitpoint.created", "waitpoint.cancelled"],
  pending_action: ["actions", "action.requested", "action.expired"],
  session_waiting: ["sessions", "session.waiting", "session.resumed"],
  plan_approval: ["plans", "plan.proposed", "plan.superseded"],
  message: ["messages", "message.posted", "message.withdrawn"],
};

/** @param {any} value @returns {any} the value with sorted members and without undefined ones */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null || value instanceof String) return value;
  return Object.fromEntries(Object.keys(value).sort().filter((name) => value[name] !== undefined).map((name) => [name, sorted(value[name])]));
}

/** @param {unknown[]} parts @param {number} [digits] */
export async function hash(parts, digits = 32) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(stringify(sorted(parts)))));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("").slice(0, digits);
}

/** @param {AskOption | string} option @returns {AskOption} */
function optionOf(option) {
  if (typeof option !== "string") return option;
  if (!DOES.includes(option)) return { id: option.trim().replaceAll(/\s+/g, "_"), does: "choose", title: option };
  const style = option === "approve" ? "primary" : option === "reject" ? "danger" : undefined;
  return { id: option, does: /** @type {Does} */ (option), style };
}

/** @param {Question} question */
function optionsOf({ options, action, form }) {
  if (options !== undefined) return options.map(optionOf);
  if (action?.editable) return ["approve", "edit", "reject"].map(optionOf);
  return form === undefined ? undefined : [{ id: "answer", does: "respond", style: "primary" }];
}

/** Returns `data` of the event without the ask's id and times. @param {Question} question @param {boolean} confirm */
function contentOf(question, confirm) {
  const ask = {
    options: optionsOf(question), form: question.form, action: question.action, deciders: question.deciders,
    quorum: question.quorum === undefined ? undefined : { approve: question.quorum }, on_expiry: question.onExpiry,
    batch: question.batch === undefined ? undefined : { key: question.batch }, reply: confirm ? undefined : { confirm: false },
  };
  return {
    ...question.data, title: question.title, body_md: question.body, priority: question.priority, target_user_id: question.toUser,
    target_role: question.toRole, ask,
  };
}

/** @param {Question} question @param {string} source @param {string | null} run */
export async function handleOf(question, source, run) {
  const expires = question.expires instanceof Date ? question.expires.toISOString() : question.expires;
  return `q_${await hash([source, run, question.kind ?? "waitpoint", question.subject ?? null, contentOf(question, true), expires ?? null])}`;
}

/** @param {string} source @param {string} id @param {string} type @param {string} subject @param {Date} at @param {object} data */
const event = (source, id, type, subject, at, data) => ({ specversion: "1.0", id, source, type, subject, time: at.toISOString(), data });

/**
 * Returns the event that asks. `after`: what ended the question before, if it is asked again.
 * @param {Question} question @param {string} source @param {string} subject @param {string} handle @param {Date} at
 * @param {string | null} after
 */
export async function askEvent(question, source, subject, handle, at, after) {
  const id = after === null ? handle : `${handle}.${await hash([after], 8)}`;
  const data = contentOf(question, true), { expires } = question;
  const until = typeof expires === "number" ? new Date(at.getTime() + expires) : expires;
  return event(source, id, KINDS[question.kind ?? "waitpoint"][1], subject, at, { ...data, ask: { ...data.ask, id, expires_at: until?.toISOString() } });
}

/** @param {string} source @param {string} subject @param {Date} at @param {Record<string, unknown>} data */
export const notifyEvent = async (source, subject, at, data) =>
  event(source, `n_${await hash([source, subject, data])}`, KINDS.message[1], subject, at, data);

/** @param {string} source @param {string} kind @param {string} subject @param {Item} item @param {Date} at */
export const closeEvent = async (source, kind, subject, item, at) =>
  event(source, `w_${await hash([source, kind, subject, item.ask?.id ?? null, item.created_at])}`, KINDS[kind][2], subject, at, {});

/** @param {string} source @param {string} subject @param {Date} at @param {string} id */
export const unpostEvent = (source, subject, at, id) => event(source, `w_${id}`, KINDS.message[2], subject, at, {});

/** @param {string} source @param {Answer} answer @param {Date} at @param {string} [refused] the reason, at most 1024 characters */
export function reportEvent(source, answer, at, refused) {
  const verb = refused === undefined ? "applied" : "refused";
  return event(source, `${answer.decision}.${verb}`, `decision.${verb}`, answer.subject, at, { decision: answer.decision, reason: refused?.slice(0, 1024) || undefined });
}

/** @param {DecisionRow} entry @returns {Answer} */
export function answerOf(entry) {
  const does = entry.does ?? "";
  return {
    decision: entry.id, subject: entry.source_id, kind: entry.kind, option: entry.option ?? "", does, form: entry.form ?? {},
    approved: does === "approve" || does === "edit", args: entry.args ?? null, edited: entry.edited ?? [], comment: entry.comment ?? null,
    by: entry.actors?.at(-1)?.user ?? null, confirmed: entry.state === "applied", raw: entry,
  };
}
