// Markdown from anybody -> nodes that are safe to show. Images become links: the page fetches nothing from elsewhere.
// It is a third of the page and not needed for the list, so `body.js` loads it after that.
import { Marked } from "../../vendor/marked.js";
import DOMPurify from "../../vendor/purify.js";

/** @param {string} text */
const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true, breaks: true,
  renderer: {
    html: (/** @type {{text: string}} */ { text }) => escaped(text), // markup in a text is text
    image: (/** @type {{href: string, text: string}} */ { href, text }) => `<a href="${escaped(href)}">${escaped(text || "image")}</a>`,
  },
});

const TAGS = [
  "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "del", "a",
  "table", "thead", "tbody", "tr", "th", "td",
];

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

/** @param {string} text @returns {DocumentFragment} */
export function safe(text) {
  return DOMPurify.sanitize(marked.parse(text), {
    ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "align", "start"], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|\/(?!\/))/i, RETURN_DOM_FRAGMENT: true,
  });
}
