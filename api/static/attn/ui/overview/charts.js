// Small charts as SVG and lists; each one also has its numbers as text for screen readers.
import { formatTime, formatDuration } from "../../text/labels.js";
import { html } from "../dom.js";

const WIDTH = 320, HEIGHT = 80; // units of the SVG, which is stretched to its container

/**
 * Two series as columns: one above the axis, one below.
 * @param {{times: string[], up: number[], down: number[], names: [string, string], hourly: boolean}} how
 */
export function Columns({ times, up, down, names, hourly }) {
  const most = Math.max(1, ...up, ...down), half = HEIGHT / 2, step = WIDTH / Math.max(1, times.length);
  const wide = Math.max(1, step - Math.min(2, step / 4));
  const name = (/** @type {string} */ time) => formatTime(time, hourly ? { hour: "numeric" } : { day: "numeric", month: "short" });
  const every = Math.max(1, Math.ceil(times.length / 6));
  const marks = times.map((_, place) => place).filter((place) => place % every === 0);
  const sum = (/** @type {number[]} */ all) => all.reduce((one, other) => one + other, 0);
  return html`<figure class="chart">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${names[0]} ${sum(up)}, ${names[1].toLowerCase()} ${sum(down)}; at most ${most} at a time`}>
      <line class="axis" x1="0" x2=${WIDTH} y1=${half} y2=${half} />
      ${times.map((time, place) => html`<g key=${time}>
        <title>${`${name(time)}: ${up[place]} ${names[0].toLowerCase()}, ${down[place]} ${names[1].toLowerCase()}`}</title>
        <rect class="hit" x=${place * step} y="0" width=${step} height=${HEIGHT} />
        ${up[place] > 0 && html`<rect class="up" x=${place * step} width=${wide} y=${half - Math.max(1.5, (up[place] / most) * (half - 2))} height=${Math.max(1.5, (up[place] / most) * (half - 2))} />`}
        ${down[place] > 0 && html`<rect class="down" x=${place * step} width=${wide} y=${half + 1} height=${Math.max(1.5, (down[place] / most) * (half - 2))} />`}
      </g>`)}
    </svg>
    <div class="times" aria-hidden="true">${marks.map((place) => html`<span key=${place} style=${{ width: `${(100 * Math.min(every, times.length - place)) / times.length}%` }}>${name(times[place])}</span>`)}</div>
    <figcaption><span class="key up">${names[0]} <b>${sum(up).toLocaleString()}</b></span><span class="key down">${names[1]} <b>${sum(down).toLocaleString()}</b></span></figcaption>
  </figure>`;
}

/**
 * Numbers by name as bars; a click on a bar calls `pick`.
 * @param {{rows: {name: string, label: string, value: number}[], pick?: (name: string) => void}} how
 */
export function Bars({ rows, pick }) {
  const most = Math.max(1, ...rows.map((row) => row.value));
  return html`<ul class="bars" role="list">
    ${rows.map(({ name, label, value }) => {
      const inside = html`<span class="label" dir="auto">${label}</span><span class="bar" aria-hidden="true"><i style=${{ width: `${(100 * value) / most}%` }}></i></span><b>${value.toLocaleString()}</b>`;
      return html`<li key=${name}>${pick ? html`<button class="plain" onClick=${() => pick(name)}>${inside}</button>` : html`<span class="plain">${inside}</span>`}</li>`;
    })}
  </ul>`;
}

/**
 * Median and 90th percentile of durations, on a logarithmic scale.
 * @param {{rows: {name: string, label: string, median: number, p90: number}[]}} how seconds
 */
export function Ranges({ rows }) {
  const place = (/** @type {number} */ seconds) => Math.log10(Math.max(10, seconds)) - 1;
  const most = Math.max(1, ...rows.map((row) => place(row.p90)));
  return html`<ul class="bars ranges" role="list">
    ${rows.map(({ name, label, median, p90 }) => html`<li key=${name}><span class="plain" title=${`half within ${formatDuration(median)}, 90 % within ${formatDuration(p90)}`}>
      <span class="label" dir="auto">${label}</span>
      <span class="bar" aria-hidden="true"><i class="p90" style=${{ width: `${(100 * place(p90)) / most}%` }}></i><i style=${{ width: `${(100 * place(median)) / most}%` }}></i></span>
      <b>${formatDuration(median)}<span class="hidden"> half of them, 90 % within ${formatDuration(p90)}</span></b></span></li>`)}
  </ul>`;
}
