// The question of the open item: what is asked, the answer, and what became of it.
import { openNextQuestion, takeBack } from "../../commands/decisions.js";
import { hasText } from "../../answer/drafts.js";
import { SETTLE_MS } from "../../answer/input_guard.js";
import { optionDone, optionKeys } from "../../answer/option_keys.js";
import { isOwn, outcome, receiptPath, sentence, whoDid } from "../../answer/outcome.js";
import { isOpen, openOptions, ownVote, whyNot } from "../../answer/question.js";
import { now as serverNow } from "../../clock.js";
import { setAnswerKeys } from "../../shell/answer_key.js";
import { page } from "../../state/page_state.js";
import { html, useClock, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../dom.js";
import { Icon } from "../icons.js";
import { AnswerBar, tooEarly } from "./answer_bar.js";
import { announce, guard, useAnswer } from "./answer_state.js";
import { Diff } from "./args_editor.js";
import { Action, Terms, Votes } from "./asked.js";
import { Compose, draftText, KeptText, typedText } from "./compose.js";
import { idOf } from "./fields.js";

/** @typedef {import("../../types").Item} Item */

/** @param {{item: Item, state: import("../../state/store.js").State, gone: string | undefined, children?: any}} how `children`: the text of the item */
export function Question({ item, state, gone, children }) {
  const { me } = state, now = useClock(serverNow, 500);
  const answer = useAnswer(item, me), { question, draft, old } = answer;
  const options = useMemo(() => openOptions(item), [item.ask, item.decision]);
  const keys = useMemo(() => optionKeys(item.ask?.options ?? []), [item.ask]);
  const why = whyNot(item, me), open = isOpen(item) && (gone === undefined || state.view === "dismissed" || state.dismissed.items.some((one) => one.id === item.id)), answerable = open && !why;
  const [commenting, setCommenting] = useState(false);
  const comment = () => {
    setCommenting(true);
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(idOf("comment"))?.focus()));
  };
  useEffect(() => setCommenting(false), [item.id]);
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const ready = useGuard(ref, answerable ? question : null);
  useKeys({ answerable, question, keys, options, answer, comment, id: item.id });
  useKeptFocus(open);
  const before = useChanged(item);
  const said = outcome(item, me, now);
  // The message of the command announces the reader's own decision.
  useSpoken(item, said === null || (item.decision?.state === "made" && isOwn(item.decision, me)) ? "" : said.text, before !== null);
  const typed = hasText(draft) ? typedText(item, draft) : "";
  return html`
    <section class="question" aria-label="The question" data-question=${question}>
      ${item.decision?.returned && open && html`<div class="notice bad returned" role="status"><p><b>${said && sentence(said.text)}</b></p>
        <p>${said?.detail} ${item.decision.returned === "refused" ? "You can decide again." : "It may have taken effect. Only the same answer can be sent again."}</p></div>`}
      ${before && open && html`<${Changed} before=${before} item=${item} />`}
      ${!open && html`<${Closed} item=${item} said=${said} now=${now} state=${state} gone=${gone} />`}
      ${!open && !answer.busy && (item.decision ? !isOwn(item.decision, me) : item.state !== "decided") && html`<${KeptText} text=${typed} why="Your answer was not sent. Your text is kept:" />`}
      <div class="asked" id="asked" ref=${ref}>${item.ask?.action && html`<${Action} action=${item.ask.action} />`}
        <${Terms} item=${item} me=${me} now=${now} /></div>
      ${open && html`<${Votes} item=${item} me=${me} now=${now} />`}
      ${children}
      ${open && ownVote(item, me) && html`<p class="notice" role="status">You ${optionDone(ownVote(item, me)?.vote ?? "", undefined, item.ask?.options ?? [])}. You can still change your vote.</p>`}
      ${open && why && html`<p class="notice" role="note">${why}</p>`}
      ${old && open && html`<${KeptText} key=${question} text=${draftText(old)} why="You typed this for the question as it was before:" forget=${answer.forgetOld} />`}
      ${answerable && html`<${Compose} item=${item} options=${options} answer=${answer} commenting=${commenting} comment=${comment} />`}
    </section>
    ${answerable && html`<${AnswerBar} item=${item} options=${options} keys=${keys} answer=${answer} ready=${ready} />`}`;
}

/** What became of the question. @param {{item: Item, said: import("../../answer/outcome.js").Outcome | null, now: number, state: import("../../state/store.js").State, gone: string | undefined}} how */
function Closed({ item, said, now, state, gone }) {
  const { me } = state, { decision } = item;
  if (!decision || decision.state === "taken_back" || !said) {
    const text = state.pending.has(item.id) ? "Sending your answer…" : item.state === "decided" ? "This has just been decided." : `This question is closed: ${gone ?? item.resolved_action ?? item.state}.`;
    return html`<div class="outcome calm"><p><b>${text}</b></p></div>`;
  }
  return html`<div class=${`outcome ${said.tone}`}>
    <p><b>${isOwn(decision, me) ? said.text : sentence(`Already ${whoDid(decision, item, me, now)}`)}</b></p>
    <p>${isOwn(decision, me) ? said.detail : said.text}</p>
    ${decision.actors?.filter((actor) => actor.comment).map((actor) => html`<blockquote key=${actor.user} dir="auto">${actor.comment}</blockquote>`)}
    <p class="row-of">${said.left > 0 && html`<button type="button" class="button" onClick=${() => takeBack([item.id])}><${Icon} name="back" size="16" /> Take back <span aria-hidden="true">(${said.left} s)</span></button>`}
      ${decision.option && html`<a class="button" href=${receiptPath(item.id, decision.id)} download=${`${decision.id}.receipt.json`}>Receipt</a>`}
      <button type="button" class="button" onClick=${() => openNextQuestion(item.id)}>Next <kbd>n</kbd></button></p>
  </div>`;
}

/** Says that the question changed while it was on screen, and what. @param {{before: Item, item: Item}} how */
function Changed({ before, item }) {
  const shown = (/** @type {Item} */ { title, body_md, ask }) => ({ title, body: body_md, action: ask?.action?.name, args: ask?.action?.args, options: ask?.options.map((option) => option.title ?? option.id), until: ask?.expires_at });
  const was = useMemo(() => shown(before), [before]), is = useMemo(() => shown(item), [item.digest]);
  return html`<div class="notice changed" role="alert" tabIndex="0"><p><b>The question has changed.</b> Earlier votes do not count. Read it again.</p><${Diff} before=${was} after=${is} title="What changed" /></div>`;
}

/** Shows the result of an answer, and moves the focus to the item if the focused button has left the page. @param {boolean} open */
function useKeptFocus(open) {
  const was = useRef(open);
  useEffect(() => {
    if (was.current && !open) document.getElementById("detail")?.scrollTo(0, 0);
    was.current = open;
    const frame = requestAnimationFrame(() => {
      if (document.activeElement === document.body) document.getElementById("detail")?.focus({ preventScroll: true });
    });
    return () => cancelAnimationFrame(frame);
  }, [open]);
}

/** Returns the item as it was on screen before its question changed; null if it has not changed since it was opened. @param {Item} item @returns {Item | null} */
function useChanged(item) {
  const seen = useRef({ id: item.id, digest: item.digest, item, before: /** @type {Item | null} */ (null) });
  const at = seen.current;
  if (at.id !== item.id) seen.current = { id: item.id, digest: item.digest, item, before: null };
  else if (at.digest !== item.digest && item.digest !== undefined) seen.current = { id: item.id, digest: item.digest, item, before: at.item };
  else at.item = item;
  return seen.current.before;
}

/** Speaks what happens to the question while it is on screen. @param {Item} item @param {string} text @param {boolean} changed */
function useSpoken(item, text, changed) {
  const spoken = useRef({ id: item.id, state: item.decision?.state, digest: item.digest });
  useEffect(() => {
    const at = spoken.current;
    if (at.id === item.id && changed && at.digest !== item.digest) announce("The question has changed. Read it again; your text is kept.");
    else if (at.id === item.id && text && at.state !== item.decision?.state) announce(text);
    spoken.current = { id: item.id, state: item.decision?.state, digest: item.digest };
  }, [item.id, item.digest, item.decision?.state]);
}

/**
 * Sets which question is on screen. Returns whether it has been there for long enough to take an answer.
 * @param {{current: HTMLElement | null}} ref
 * @param {string | null} question
 */
function useGuard(ref, question) {
  const [ready, setReady] = useState("");
  useLayoutEffect(() => guard.show(question), [question]);
  useEffect(() => {
    const at = ref.current;
    if (!at) return undefined;
    let inside = false;
    const look = () => guard.setVisible(inside && !document.hidden);
    const seen = new IntersectionObserver(([entry]) => { inside = entry.isIntersecting; look(); });
    seen.observe(at);
    document.addEventListener("visibilitychange", look);
    return () => {
      seen.disconnect();
      document.removeEventListener("visibilitychange", look);
      guard.setVisible(false);
      guard.show(null);
    };
  }, []);
  useEffect(() => {
    setReady(""); // a question that opens again begins anew
    if (question === null) return undefined;
    const timer = setInterval(() => {
      if (!guard.acceptsKey(question)) return;
      setReady(question);
      clearInterval(timer);
    }, SETTLE_MS / 5);
    return () => clearInterval(timer);
  }, [question]);
  return question !== null && ready === question;
}

/**
 * Handles the keys of the question.
 * @param {{answerable: boolean, question: string, keys: Map<string, string | null>, options: import("../../types").Option[], answer: import("./answer_state.js").AnswerState, comment: () => void, id: string}} how
 */
function useKeys({ answerable, question, keys, options, answer, comment, id }) {
  useEffect(() => {
    setAnswerKeys((event) => {
      if (event.key === "n") {
        if (!event.repeat) openNextQuestion(id);
        return true;
      }
      if (!answerable || page.get().selected.size) return false;
      if (event.key === "c") {
        comment();
        return true;
      }
      const option = options.find((one) => keys.get(one.id) === event.key);
      if (!option) return false;
      if (event.repeat) return true; // a key that is held down answers once
      const { openItem } = page.get();
      if (openItem?.id !== id || !guard.acceptsKey(question)) tooEarly();
      else answer.press(option);
      return true;
    });
    return () => setAnswerKeys(null);
  });
}
