// Renders markdown to sanitised nodes in bounded time: a worker parses the text, the sanitiser creates nodes. `body.js` loads
// this module after the list, which does not need it.
import DOMPurify from "../../vendor/purify.js";
import { linkTo } from "./links.js";

const LONGEST = 200_000; // characters of a text and of its HTML; longer ones are shown as plain text
const DEADLINE = 4000, BEGINNING = 30_000; // milliseconds for one text, and for loading a worker
const KEPT = 30; // texts whose HTML is cached

const TAGS = [
  "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "del", "a",
  "table", "thead", "tbody", "tr", "th", "td", "span",
];

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  const href = node.getAttribute("href") ?? "";
  const to = /^mailto:/i.test(href) ? href : linkTo(href);
  if (to === null) return node.removeAttribute("href");
  node.setAttribute("href", to);
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

/** @param {string} html @returns {DocumentFragment} */
function safe(html) {
  const made = DOMPurify.sanitize(html, {
    // Class, role and label belong to task boxes: markup in the text itself is escaped.
    ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "align", "start", "class", "role", "aria-label"], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
    ADD_URI_SAFE_ATTR: ["align", "start", "aria-label"], // their values are not URLs
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|\/(?!\/))/i, RETURN_DOM_FRAGMENT: true,
  });
  for (const one of made.querySelectorAll("table, pre")) one.setAttribute("tabindex", "0"); // they scroll horizontally
  for (const one of made.querySelectorAll("p, li, td, th, h1, h2, h3, h4, h5, h6")) one.setAttribute("dir", "auto");
  return made;
}

/** @typedef {{text: string, done: (html: string | null) => void}} Job */

/** HTML by text; null: shown as plain text. @type {Map<string, string | null>} */
const kept = new Map();
/** @type {Job[]} the worker processes the first one */
let jobs = [];
/** @type {Worker | null} */
let worker = null;
let begun = false, timer = 0;

function begin() {
  worker = new Worker(policy ? policy.createScriptURL(SCRIPT) : SCRIPT, { type: "module" });
  begun = false;
  timer = setTimeout(() => end(null), BEGINNING);
  worker.onmessage = ({ data }) => {
    clearTimeout(timer);
    if (begun) jobs.shift()?.done(data.html);
    begun = true;
    next();
  };
  worker.onerror = () => end(null);
}

const SCRIPT = new URL("./markdown_worker.js", import.meta.url).href;
/** Trusted Types policy that allows only this worker script; the page's CSP names it. */
const policy = makePolicy();
function makePolicy() {
  try {
    return /** @type {any} */ (globalThis).trustedTypes?.createPolicy("attn-worker", {
      createScriptURL: (/** @type {string} */ url) => {
        if (url !== SCRIPT) throw new TypeError("not a worker of the page");
        return url;
      },
    });
  } catch {
    return undefined; // the CSP of an older page does not name the policy: no worker starts, and texts are shown as plain text
  }
}

/** Sends the first job to the worker and starts its deadline. */
function next() {
  if (!jobs.length) return;
  timer = setTimeout(() => end(null), DEADLINE);
  worker?.postMessage({ text: jobs[0].text });
}

/** Terminates the worker and completes its current job; the other jobs get a new worker. @param {string | null} html of that job */
function end(html) {
  clearTimeout(timer);
  worker?.terminate();
  worker = null;
  jobs.shift()?.done(html);
  if (jobs.length) start();
}

function start() {
  try {
    begin();
  } catch {
    for (const job of jobs.splice(0)) job.done(null); // the browser has no workers
  }
}

/** Starts the worker before the first item is opened. */
export function prepare() {
  if (worker === null) start();
}

/**
 * @param {string} text
 * @param {AbortSignal} signal aborted when the item is closed
 * @returns {Promise<DocumentFragment | null>} null: show it as plain text
 */
export async function render(text, signal) {
  if (text.length > LONGEST) return null;
  let html = kept.get(text);
  if (html === undefined) {
    const made = await parse(text, signal);
    if (made === undefined) return null;
    html = made !== null && made.length <= LONGEST ? made : null;
    kept.set(text, html);
    if (kept.size > KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
  }
  return html === null ? null : safe(html);
}

/**
 * @param {string} text
 * @param {AbortSignal} signal
 * @returns {Promise<string | null | undefined>} undefined: aborted
 */
function parse(text, signal) {
  return new Promise((resolve) => {
    const job = { text, done: resolve };
    signal.addEventListener("abort", () => {
      resolve(undefined);
      if (jobs[0] === job && begun) end(null); // the other jobs must not wait for an aborted one
      else jobs = jobs.filter((one) => one !== job);
    });
    jobs.push(job);
    if (worker === null) start();
    else if (begun && jobs.length === 1) next();
  });
}
