// Accepts an answer only for the question that was on screen when the key or the button was pressed. Pure: the clock is an argument.
// A question is identified by item id and digest. An input within SETTLE_MS after the question changed is ignored, because it was
// meant for what was on screen before.

export const SETTLE_MS = 500;

/** Returns the identity of the question of an item. @param {{id: string, digest?: string}} item */
export const questionId = ({ id, digest }) => `${id} ${digest ?? ""}`;

/** @param {() => number} clock milliseconds that never go back */
export function inputGuard(clock) {
  /** @type {string | null} */
  let shown = null;
  let since = Number.POSITIVE_INFINITY, seen = 0, visible = false;
  /** @type {{question: string, at: number} | null} */
  let pressed = null;
  /** @param {string} question @param {number} at */
  const settled = (question, at) => question === shown && seen + (visible ? at - since : 0) >= SETTLE_MS;
  return {
    /** Notes which question is rendered; another one begins at zero. @param {string | null} question */
    show(question) {
      if (question === shown) return;
      shown = question;
      seen = 0;
      since = clock();
    },
    /** Returns the question on screen, or null. */
    shown: () => shown,
    /** Notes whether the question is within the visible part of a visible page. @param {boolean} on */
    setVisible(on) {
      if (on === visible) return;
      if (visible) seen += clock() - since;
      since = clock();
      visible = on;
    },
    /** Notes that a button was pressed, before it is released. @param {string} question of the button as it was rendered */
    press(question) {
      pressed = { question, at: clock() };
    },
    /** Whether a click counts. If it ends a press, the same question was shown at both moments. @param {string} question */
    acceptsClick(question) {
      const at = pressed;
      pressed = null;
      return at === null ? settled(question, clock()) : at.question === question && settled(question, at.at);
    },
    /** Whether a key counts. @param {string} question */
    acceptsKey: (question) => settled(question, clock()),
    /** Returns for how many seconds the question has been on screen. */
    seconds: () => (seen + (visible ? clock() - since : 0)) / 1000,
  };
}
