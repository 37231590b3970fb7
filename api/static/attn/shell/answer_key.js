// Passes keys to the question on screen. The modules of the answer register here when they show a question, because they are loaded
// after the list.

/** @type {((event: KeyboardEvent) => boolean) | null} */
let handler = null;

/** Sets what handles the keys of the question on screen; null: no question waits for this reader's answer. @param {typeof handler} handle */
export const setAnswerKeys = (handle) => { handler = handle; };

/** Whether a question on screen waits for an answer of this reader. */
export const openQuestion = () => handler !== null;

/** Offers a key to the question. Returns whether the question used it. @param {KeyboardEvent} event */
export const answerByKey = (event) => handler !== null && handler(event);
