// What a question is to the reader: may they answer, which options are open, who voted. Pure.
import { optionDone, optionTitle } from "./option_keys.js";
import { formatTime, isolate, plural, truncate } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Me} Me */
/** @typedef {import("../types").Option} Option */
/** @typedef {import("../types").Vote} Vote */

const LONG = 200, MOST_NAMED = 6; // characters of a name, and names of a sentence

/** Cuts and isolates a foreign text. @param {string} text @param {number} [most] */
export const short = (text, most = LONG) => isolate(truncate(text, most));

/** @param {Item} item @returns {item is Item & {ask: import("../types").Ask, digest: string}} */
export const asks = (item) => item.ask !== undefined && item.digest !== undefined;

/** Whether the question waits for an answer. @param {Item} item */
export const isOpen = (item) => asks(item) && (item.state === "unread" || item.state === "read");

/** Returns the name of the system that asked, from the `source` of its event. @param {Pick<Item, "source">} item */
export const sourceName = ({ source }) => short((source ?? "").replace(/^[a-z][a-z\d+.-]*:\/\//i, "").replace(/^\/+|\/+$/g, "")) || "its source";

/** Formats the time of day, with the date if it is another day than `now`. @param {string} at @param {number} now */
export function formatMoment(at, now) {
  const day = (/** @type {number | string} */ time) => new Date(time).toDateString();
  return day(at) === day(now) ? formatTime(at, { hour: "2-digit", minute: "2-digit" }) : formatTime(at);
}

/** Joins names: `a, b and c`; a long list ends with the number of the others. @param {readonly string[]} names @param {string} last */
export function listed(names, last = "and") {
  const some = names.slice(0, MOST_NAMED), more = names.length - some.length;
  if (more > 0) return `${some.join(", ")} ${last} ${plural(more, "other")}`;
  return some.length < 2 ? some.join("") : `${some.slice(0, -1).join(", ")} ${last} ${some[some.length - 1]}`;
}

const ROLES = ["OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER"];

/** Returns who may decide, as text. @param {Item} item @param {Me | null} me */
export function decidersText({ deciders }, me) {
  if (!deciders) return "";
  const users = deciders.users.map((user) => (user === me?.user_id ? "you" : short(user)));
  const roles = ROLES.filter((role) => deciders.roles.includes(role)), all = ROLES.filter((role) => role !== "VIEWER").every((role) => roles.includes(role));
  const named = [...users, ...(all ? [`everyone who sees it${roles.includes("VIEWER") ? "" : " except viewers"}`] : roles.length ? [`every ${listed(roles.map((role) => role.toLowerCase()), "or")}`] : [])];
  const not = deciders.excluded.length ? `, but not ${listed(deciders.excluded.map((user) => (user === me?.user_id ? "you" : short(user))), "or")}` : "";
  return named.length ? `${listed(named, "or")}${not}` : "";
}

/**
 * Returns why the reader may not answer, or "".
 * @param {Item} item
 * @param {Me | null} me
 */
export function whyNot(item, me) {
  const { deciders } = item;
  if (!me) return "Checking whether you may answer…";
  if (!deciders || !me.user_id) return ""; // GET /org/me failed: the edge decides
  if (deciders.excluded.includes(me.user_id)) return "You asked for this, so another person must decide it.";
  if (deciders.users.includes(me.user_id) || deciders.roles.includes(me.role)) return "";
  const who = decidersText(item, me);
  if (me.role === "VIEWER" && !deciders.users.length) return `You see this as a viewer. It is decided by ${who || "others"}.`;
  return who ? `You can see this, but not decide it. It is decided by ${who}.` : "You can see this, but not decide it.";
}

/**
 * Returns the options that the reader may choose. A decision that was not delivered or not confirmed may have taken effect, so only the
 * same answer may be sent again.
 * @param {Item} item
 * @returns {Option[]}
 */
export function openOptions(item) {
  const options = item.ask?.options ?? [], { decision } = item;
  if (decision?.returned !== "undeliverable" && decision?.returned !== "unconfirmed") return options;
  const same = options.filter((option) => option.id === decision.option);
  return same.length ? same : options;
}

/** Returns the form of an option: its own, else that of the question, which a reject or ignore does not fill in. @param {Item} item @param {Option} option */
export const formOf = (item, option) => option.form ?? (option.does === "reject" || option.does === "ignore" ? undefined : item.ask?.form);

/** Whether an option can be given without filling anything in. @param {Item} item @param {Option} option */
export const isPlain = (item, option) => option.does !== "edit" && option.comment !== "required" && formOf(item, option) === undefined;

/** Returns the vote of the reader, if any. @param {Item} item @param {Me | null} me @returns {Vote | undefined} */
export const ownVote = (item, me) => item.votes?.find((vote) => vote.user === me?.user_id);

/** Returns the name of a voter. @param {Pick<Vote, "user" | "name">} vote @param {Me | null} me */
export const voter = ({ user, name }, me) => (user === me?.user_id ? "you" : short(name ?? user));

/** Returns how many of the needed votes were given, for example `1 of 2`. @param {Item} item */
export function quorumText(item) {
  const quorum = item.ask?.quorum?.approve ?? 1;
  if (quorum < 2) return "";
  return `${quorum - Math.min(quorum, item.needed ?? quorum)} of ${quorum}`;
}

/**
 * Returns one line for each vote: `ada approved at 14:02`.
 * @param {Item} item
 * @param {Me | null} me
 * @param {number} now
 * @returns {{user: string, text: string, comment: string}[]}
 */
export const voteLines = (item, me, now) => (item.votes ?? []).map((vote) => ({
  user: vote.user, comment: vote.comment ?? "",
  text: `${voter(vote, me)} ${optionDone(vote.vote, undefined, item.ask?.options ?? [])} at ${formatMoment(vote.at, now)}`,
}));

/** Returns the text of a button that sends an option. @param {Item} item @param {Option} option */
export function buttonText(item, option) {
  const returned = item.decision?.returned;
  return returned === "undeliverable" || returned === "unconfirmed" ? `Send again: ${optionTitle(option)}` : optionTitle(option);
}
