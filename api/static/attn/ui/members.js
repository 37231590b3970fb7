// The runs that an incident stands for.
import { ask, ok } from "../http.js";
import { ago, plural } from "../words.js";
import { html, useEffect, useState } from "./dom.js";

/** @typedef {import("../types").Item} Item */

const SHOWN = 12;

/** @param {{item: Item}} how */
export function Members({ item }) {
  const [members, show] = useState(/** @type {Item[] | null} */ (null));
  const ids = (item.members ?? []).slice(0, SHOWN), all = item.count ?? item.members?.length ?? 0;
  useEffect(() => {
    let there = true;
    Promise.all(ids.map((id) => ask("GET", `/org/me/inbox/${encodeURIComponent(id)}`)))
      .then((answers) => there && show(answers.filter(ok).map((answer) => answer.data)));
    return () => { there = false; };
  }, [ids.join(), item.revision]);
  return html`<section class="block" aria-labelledby="members-title">
    <h3 id="members-title">${plural(all, "failed run")} on ${plural(item.clusters?.length ?? 0, "cluster")}</h3>
    <p class="tags">${item.clusters?.map((name) => html`<code key=${name}>${name}</code>`)}</p>
    <ul class="members">
      ${(members ?? []).map((run) => html`<li key=${run.id}><b>${run.title}</b>
        ${run.cluster && html`<code>${run.cluster}</code>`}<span>${run.source_id}</span><span>${ago(run.created_at, Date.now())}</span>${run.state === "resolved" && html`<span class="badge quiet">resolved</span>`}</li>`)}
    </ul>
    ${all > SHOWN && html`<p class="hint">and ${all - SHOWN} more</p>`}
  </section>`;
}
