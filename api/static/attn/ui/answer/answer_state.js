// State of the answer to the open question: draft, errors, second press, sending. A press counts only for the question that was on
// screen when it began (`answer/input_guard.js`).
import { decide, fetchDecision } from "../../commands/decisions.js";
import { argFields, readArgs, readArgsText } from "../../answer/args_model.js";
import { draftStore, hasText, NO_DRAFT } from "../../answer/drafts.js";
import { entryOf, fieldsOf, readForm } from "../../answer/form_model.js";
import { inputGuard, questionId } from "../../answer/input_guard.js";
import { needsSecondPress, optionTitle } from "../../answer/option_keys.js";
import { explainAnswer, fieldErrors, signInAgain } from "../../answer/outcome.js";
import { formOf, isPlain, openOptions } from "../../answer/question.js";
import { now } from "../../clock.js";
import { stringify } from "../../exact.js";
import { ok } from "../../http.js";
import { page } from "../../state/page_state.js";
import { useEffect, useMemo, useRef, useState } from "../dom.js";
import { idOf } from "./fields.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../types").Me} Me */
/** @typedef {import("../../types").Option} Option */
/** @typedef {import("../../answer/drafts.js").Draft} Draft */

const SECOND_PRESS_MS = 400, ARMED_MS = 6000; // least and most milliseconds between the two presses of a dangerous answer
const MAX_COMMENT = 4096; // characters, as at the edge

/** One guard for the page: only one question is open. */
export const guard = inputGuard(() => performance.now());

/** Shows a text to screen readers. @param {string} text */
export const announce = (text) => page.set({ announcement: text });

/**
 * Returns the draft for a question. Entries for an earlier question of the item are kept where the form still has the field.
 * @param {ReturnType<typeof draftStore>} drafts
 * @param {Item} item
 * @returns {{draft: Draft, old: Draft | null}} `old`: what was typed for the earlier question
 */
function loadDraft(drafts, item) {
  const mine = drafts.load(item.id, item.digest ?? ""), old = drafts.loadOther(item.id, item.digest ?? "");
  const kept = old && hasText(old) ? old : null;
  if (mine || !kept) return { draft: mine ?? NO_DRAFT, old: kept };
  const option = item.ask?.options.find((one) => one.id === kept.option);
  const fields = new Map(fieldsOf(option ? formOf(item, option) : item.ask?.form).map((field) => [field.name, field]));
  const form = Object.fromEntries(Object.entries(kept.form).filter(([name, entry]) => Array.isArray(entry) === (fields.get(name)?.kind === "multi") && fields.has(name)));
  // Changed arguments are not carried over: they were meant for other ones. They stay readable beside the form.
  return { draft: { ...NO_DRAFT, option: option && option.does !== "edit" ? option.id : "", comment: kept.comment, form }, old: kept };
}

/** Moves the focus to the first field with an error. @param {readonly string[]} paths */
function focusFirst(paths) {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const at = paths.map((path) => document.getElementById(idOf(path))).find((found) => found !== null);
    at?.focus();
    at?.scrollIntoView({ block: "center" });
  }));
}

/**
 * @param {Item} item
 * @param {Me | null} me
 */
export function useAnswer(item, me) {
  const question = questionId(item);
  const drafts = useMemo(() => draftStore(sessionStorage, `${me?.workspace_id ?? ""}/${me?.user_id ?? ""}`), [me?.workspace_id, me?.user_id]);
  const first = useMemo(() => loadDraft(drafts, item), [question, drafts]);
  const [own, setOwn] = useState({ question, draft: first.draft });
  const [shown, setShown] = useState({ question, errors: /** @type {Record<string, string>} */ ({}), problem: "", others: /** @type {string[]} */ ([]), again: "" });
  const [armed, arm] = useState({ question: "", option: "", at: 0 });
  const [busy, setBusy] = useState(false);
  const there = useRef(true);
  useEffect(() => () => { there.current = false; }, []);
  const draft = own.question === question ? own.draft : first.draft;
  const { errors, problem, others, again: signIn } = shown.question === question ? shown : { errors: /** @type {Record<string, string>} */ ({}), problem: "", others: [], again: "" };
  const isArmed = (/** @type {Option} */ option) => armed.question === question && armed.option === option.id && performance.now() - armed.at < ARMED_MS;

  const options = openOptions(item), sole = options.length === 1;
  // The only answer needs no button that opens its form.
  const open = options.find((option) => (sole || option.id === draft.option) && !isPlain(item, option)) ?? null;

  const change = (/** @type {Partial<Draft>} */ some) => {
    const next = { ...draft, ...some };
    drafts.save(item.id, item.digest ?? "", next);
    setOwn({ question, draft: next });
  };
  const showErrors = (/** @type {Record<string, string>} */ errors, problem = "", /** @type {string[]} */ others = [], again = "") => {
    if (!there.current) return;
    setShown({ question, errors, problem, others, again });
    const texts = Object.values(errors);
    if (texts.length) announce(`Not sent. ${texts.length === 1 ? texts[0] : `${texts.length} entries do not fit.`}`);
    focusFirst(Object.keys(errors));
  };
  const disarm = () => arm({ question: "", option: "", at: 0 });

  /** Reads form, arguments and comment for an option. @param {Option} option */
  const read = (option) => {
    const fields = fieldsOf(formOf(item, option)), action = item.ask?.action;
    const { form, errors: wrong } = readForm(fields, draft.form);
    const edited = option.does !== "edit" || !action ? null
      : draft.json === null ? readArgs(action, argFields(action), draft.args) : readArgsText(draft.json);
    const comment = draft.comment.trim() ? draft.comment : "";
    /** @type {Record<string, string>} */
    const remark = option.comment === "required" && !comment ? { comment: "Say why: this answer needs a comment." }
      : option.comment === "no" && comment ? { comment: `“${optionTitle(option)}” takes no comment. Delete the text, or choose another answer.` }
        : [...comment].length > MAX_COMMENT ? { comment: `${[...comment].length} characters; at most ${MAX_COMMENT} are accepted.` } : {};
    return {
      fields, errors: { ...wrong, ...edited?.errors, ...remark }, args: edited && !Object.keys(edited.errors).length ? edited.args : null,
      reply: {
        option: option.id, ...(fields.length && { form }), ...(edited && { args: edited.args }), ...(comment && { comment }), digest: item.digest ?? "",
      },
    };
  };

  /** @param {Option} option */
  const send = async (option) => {
    const { reply, errors: wrong, fields } = read(option);
    if (Object.keys(wrong).length) return showErrors(wrong);
    if (needsSecondPress(option, item.ask?.action) && !(isArmed(option) && performance.now() - armed.at >= SECOND_PRESS_MS)) {
      if (!isArmed(option)) {
        arm({ question, option: option.id, at: performance.now() });
        announce(`Press again to confirm: ${optionTitle(option)}`);
        setTimeout(() => there.current && disarm(), ARMED_MS);
      }
      return undefined;
    }
    disarm();
    setBusy(true);
    showErrors({});
    const answer = await decide(item, reply, guard.seconds());
    if (!there.current) return undefined;
    setBusy(false);
    if (ok(answer)) return drafts.removeOthers(item.id, item.digest ?? "");
    const paths = new Set([...fields.map((field) => `form.${field.name}`), "comment", "args", ...Object.keys(item.ask?.action?.args ?? {}).map((name) => `args.${name}`)]);
    const { byField, others } = fieldErrors(answer.status === 422 ? answer.data?.fields : null, paths);
    // After 412 the text belongs to the new question, which is shown by now.
    if (answer.status !== 412) showErrors(byField, explainAnswer(answer, item, me, now()), others, signInAgain(answer, item));
    if (answer.status === 422 && (Object.keys(byField).some((path) => path !== "comment") || others.length)) change({ option: option.id });
    return undefined;
  };

  /** Takes an answer: opens its form, or sends it. @param {Option} option */
  const press = (option) => {
    if (busy) return;
    if (!isPlain(item, option) && open?.id !== option.id) {
      disarm();
      change({ option: option.id });
      const { fields } = read(option), action = item.ask?.action;
      const editable = option.does === "edit" && action ? argFields(action).filter((field) => field.editable).map((field) => `args.${field.name}`) : [];
      focusFirst(option.does === "edit" ? [draft.json !== null ? "args" : editable[0] ?? "args"] : fields.length ? [`form.${fields[0].name}`] : ["comment"]);
      return;
    }
    send(option);
  };
  const back = () => {
    change({ option: "" });
    setShown({ question, errors: {}, problem: "", others: [], again: "" });
    disarm();
  };
  const again = item.decision?.returned === "undeliverable" || item.decision?.returned === "unconfirmed" ? item.decision : null;
  useEffect(() => {
    if (!again || !open || hasText(draft)) return;
    // Only the same answer may be sent again: the form shows it.
    fetchDecision(again).then((row) => {
      if (!row || !there.current || guard.shown() !== question) return;
      const form = Object.fromEntries(fieldsOf(formOf(item, open)).filter(({ name }) => row.form && Object.hasOwn(row.form, name)).map((field) => [field.name, entryOf(field, row.form?.[field.name])]));
      change({ option: open.id, form, json: row.args ? stringify(row.args, 2) : null, comment: row.comment ?? "" });
    });
  }, [question, again?.id, open?.id]);
  return { question, sole, draft, old: first.old, errors, problem, others, signIn, busy, open, isArmed, change, press, back, read, forgetOld: () => drafts.removeOthers(item.id, item.digest ?? "") };
}

/** @typedef {ReturnType<typeof useAnswer>} AnswerState */
