// The card "Let a terminal in": shows which terminal asks (`attn login`), and lets it in with the code that the person reads there.
import { ok, request } from "../http.js";
import { page } from "../state/page_state.js";
import { formatTime, truncate } from "../text/labels.js";
import { html, useEffect, useRef, useState } from "../ui/dom.js";
import { codeProblem, explainTerminal, lettersOf } from "./terminal_form.js";

const LONG = 200; // characters of a text

/** The content of the card. @param {{asked: string}} how `asked`: the request in the address that the terminal shows */
export function TerminalCard({ asked }) {
  const [details, setDetails] = useState(/** @type {{device: string, address: string, expires_at: string} | null} */ (null));
  const [problem, setProblem] = useState(""), [done, setDone] = useState(""), [busy, setBusy] = useState(false);
  const here = useRef(true), code = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    request("POST", "/auth/device/request", { request: asked }).then((answer) => {
      if (!here.current) return;
      if (ok(answer)) setDetails(answer.data);
      else setProblem(explainTerminal(answer));
    });
    return () => { here.current = false; };
  }, []);
  const send = async (/** @type {boolean} */ allow) => {
    const typed = code.current?.value ?? "", wrong = allow ? codeProblem(typed) : "";
    setProblem(wrong);
    if (wrong) return code.current?.focus();
    setBusy(true);
    const answer = await request("POST", "/auth/device/answer", { request: asked, allow, user_code: allow ? lettersOf(typed) : "" });
    if (!here.current) return undefined;
    setBusy(false);
    if (ok(answer)) setDone(allow ? "The terminal is signed in. You find it in My sessions." : "The terminal was refused.");
    else setProblem(explainTerminal(answer));
    return undefined;
  };
  const { me } = page.get();
  if (done) return html`<p role="status">${done}</p>`;
  if (!details) return problem ? html`<p class="notice bad" role="alert">${problem}</p>` : html`<p class="hint" role="status">Loading…</p>`;
  return html`<p><b><bdi>${truncate(details.device || "An unnamed terminal", LONG)}</bdi></b> asks from <bdi>${truncate(details.address || "an unknown address", LONG)}</bdi>.
      It would act as <bdi>${truncate(me?.user_id ?? "", LONG)}</bdi>, ${me?.role} in <bdi>${truncate(me?.workspace_id ?? "", LONG)}</bdi>, until you sign out here.</p>
    <p class="notice bad">Let it in only if you have just run <code>attn login</code> yourself. Did somebody send you the address or the code? Then refuse.</p>
    <form onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); send(true); }}>
      <label>Code that the terminal shows <input ref=${code} autofocus autocomplete="off" spellcheck="false" maxlength="40" aria-describedby="terminal-problem" /></label>
      <button class="button primary" disabled=${busy}>Let it in</button>
      <button type="button" class="button" disabled=${busy} onClick=${() => send(false)}>Refuse</button>
    </form>
    <p class="problem" id="terminal-problem" role="alert">${problem}</p>
    <p class="hint">The request ends ${formatTime(details.expires_at, { timeStyle: "short" })}.</p>`;
}
