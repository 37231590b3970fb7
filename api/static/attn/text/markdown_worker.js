// Web worker that converts markdown to HTML. The parser may need minutes for a text of 64 KB, so it never runs on the page's
// thread, and `markdown.js` terminates the worker at a deadline. Structures that are expensive to lay out are refused.
import { Marked } from "../../vendor/marked.js";

const DEEPEST = 24, COLUMNS = 60, NODES = 6000; // nesting of lists and quotes, cells of a table row, tokens in total

/** @param {string} text */
const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true, breaks: true,
  renderer: {
    html: (/** @type {{text: string}} */ { text }) => escaped(text), // HTML in the text is shown as text
    // The page loads nothing from other hosts, so an image becomes a link.
    image: (/** @type {{href: string, text: string}} */ { href, text }) => `<a href="${escaped(href)}">${escaped(text || "image")}</a>`,
    checkbox: (/** @type {{checked: boolean}} */ { checked }) =>
      `<span class="task${checked ? " done" : ""}" role="img" aria-label="${checked ? "done" : "not done"}"></span> `,
  },
});

/** Throws RangeError if the tokens exceed a limit. @param {any[]} tokens */
function limit(tokens) {
  /** @type {[any, number][]} */
  const stack = tokens.map((token) => [token, 1]);
  let nodes = stack.length;
  for (let next = stack.pop(); next; next = stack.pop()) {
    const [token, depth] = next;
    const { header, rows } = token; // `header` of a table; a cell has a boolean property of that name
    if (depth > DEEPEST || (Array.isArray(header) && header.length > COLUMNS)) throw new RangeError("too deep or too wide");
    for (const children of [token.tokens, token.items, header, ...(rows ?? [])].filter(Array.isArray)) {
      nodes += children.length;
      if (nodes > NODES) throw new RangeError("too much");
      for (const child of children) stack.push([child, depth + 1]);
    }
  }
}

/** @param {string} text @returns {string | null} null: show the text as plain text */
export function toHtml(text) {
  try {
    const tokens = marked.lexer(text);
    limit(tokens);
    return marked.parser(tokens);
  } catch {
    return null; // usually a stack overflow of the parser
  }
}

if ("WorkerGlobalScope" in globalThis) {
  addEventListener("message", ({ data }) => postMessage({ html: toHtml(data.text) }));
  postMessage({ ready: true });
}
