// Runs that are grouped into an incident.
import { request, ok } from "../../http.js";
import { now } from "../../clock.js";
import { formatAge, truncate, plural } from "../../text/labels.js";
import { html, useEffect, useState } from "../dom.js";
import { Paged } from "../show_more.js";

/** @typedef {import("../../types").Item} Item */

const SHOWN = 12, CLUSTERS = 60, LONG = 300; // runs, clusters, characters of a name

/** The first runs of an incident, and its clusters. @param {{item: Item}} how */
export function IncidentMembers({ item }) {
  const [members, show] = useState(/** @type {Item[] | null} */ (null));
  const ids = (item.members ?? []).slice(0, SHOWN), all = item.count ?? item.members?.length ?? 0;
  useEffect(() => {
    let there = true;
    Promise.all(ids.map((id) => request("GET", `/org/me/inbox/${encodeURIComponent(id)}`)))
      .then((answers) => there && show(answers.filter(ok).map((answer) => answer.data)));
    return () => { there = false; };
  }, [ids.join(), item.revision]);
  return html`<section class="block" aria-labelledby="members-title">
    <h3 id="members-title">${plural(all, "failed run")} on ${plural(item.clusters?.length ?? 0, "cluster")}</h3>
    <p class="tags"><${Paged} of=${item.clusters ?? []} most=${CLUSTERS} one="cluster" draw=${(/** @type {string} */ name) => html`<code key=${name} dir="auto">${truncate(name, LONG)}</code>`} /></p>
    <ul class="members">
      ${(members ?? []).map((run) => html`<li key=${run.id}><b dir="auto">${truncate(run.title, LONG)}</b>
        ${run.cluster && html`<code dir="auto">${truncate(run.cluster, LONG)}</code>`}<bdi>${truncate(run.source_id, LONG)}</bdi><span>${formatAge(run.created_at, now())}</span>${run.state === "resolved" && html`<span class="badge quiet">resolved</span>`}</li>`)}
    </ul>
    ${all > SHOWN && html`<p class="hint">and ${all - SHOWN} more</p>`}
  </section>`;
}
