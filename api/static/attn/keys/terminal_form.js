// What the card "Let a terminal in" reads and says; without the DOM.

/** @typedef {import("../http.js").Answer} Answer */

const PREFIX = "#device=", LONGEST = 2000, CODE = 8; // characters of a request and of a code

/** Returns the request in the fragment of an address, or "". @param {string} hash */
export const requestIn = (hash) => hash.startsWith(PREFIX) && hash.length <= LONGEST ? hash.slice(PREFIX.length) : "";

/** Returns the letters of a typed code. @param {string} typed */
export const lettersOf = (typed) => typed.toUpperCase().replace(/[^A-Z]/g, "");

/** Returns what is wrong with a typed code, or "". @param {string} typed */
export const codeProblem = (typed) => lettersOf(typed).length === CODE ? "" : `Type the ${CODE} letters that the terminal shows.`;

/**
 * Returns why a request about a terminal failed.
 * @param {Answer} answer
 * @returns {string}
 */
export function explainTerminal({ status, data, wait }) {
  switch (status) {
    case 0: case 503: return "attn has not confirmed it. Try again: one answer counts.";
    case 400: return data?.error?.startsWith("user_code") ? "This is not the code that the terminal shows. Type it again." : "The address is not complete. Copy it again from the terminal.";
    case 401: return "Your session has ended. Sign in again, then open the address of the terminal again.";
    case 404: return "attn login is not set up here.";
    case 409: return "This terminal got an answer already.";
    case 429: return `Too many answers. Try again in ${wait === null ? "a moment" : `${wait} s`}.`;
    default: return typeof data?.error === "string" ? `attn says: ${data.error}.` : `attn answered with HTTP status ${status}.`;
  }
}
