// Keeps what a person has typed as an answer, per item and digest, until the tab is closed or the person signs out.

/** @typedef {import("./form_model.js").Entry} Entry */
/**
 * @typedef {object} Draft
 * @property {string} option id of the option whose form is open, or ""
 * @property {string} comment
 * @property {Record<string, Entry>} form
 * @property {Record<string, string>} args texts of the changed arguments
 * @property {string | null} json all arguments as one JSON text, if they are edited so
 */

const PREFIX = "attn-answer ", MOST = 60, LONGEST = 200_000; // drafts, and characters of one
/** @type {Draft} */
export const NO_DRAFT = Object.freeze({ option: "", comment: "", form: {}, args: {}, json: null });

/** Whether a person has typed anything. @param {Draft} draft */
export const hasText = ({ comment, form, args, json }) => Boolean(comment.trim() || Object.keys(form).length || Object.keys(args).length || json !== null);

/**
 * @param {Storage} storage
 * @param {string} owner user and workspace: another user of the same tab gets nothing
 */
export function draftStore(storage, owner) {
  const own = `${PREFIX}${JSON.stringify(owner)} `;
  const keyOf = (/** @type {string} */ id, /** @type {string} */ digest) => `${own}${JSON.stringify(id)} ${digest}`;
  const keys = () => Array.from({ length: storage.length }, (_, place) => storage.key(place) ?? "").filter((key) => key.startsWith(PREFIX));
  /** @param {string} key @returns {(Draft & {at: number}) | null} */
  const read = (key) => {
    try {
      const draft = JSON.parse(storage.getItem(key) ?? "null");
      return draft && typeof draft === "object" ? { ...NO_DRAFT, at: 0, ...draft } : null;
    } catch {
      return null;
    }
  };
  /** Removes the oldest drafts. @param {number} most */
  const prune = (most) => {
    const all = keys().map((key) => ({ key, at: read(key)?.at ?? 0 })).sort((a, b) => b.at - a.at);
    for (const { key } of all.slice(most)) storage.removeItem(key);
  };
  return {
    /** @param {string} id @param {string} digest @returns {Draft | null} */
    load: (id, digest) => read(keyOf(id, digest)),
    /** Returns the newest draft of the item for another question. @param {string} id @param {string} digest @returns {Draft | null} */
    loadOther(id, digest) {
      const mine = keyOf(id, ""), other = keys().filter((key) => key.startsWith(mine) && key !== keyOf(id, digest)).map(read);
      return other.filter((draft) => draft !== null).sort((a, b) => b.at - a.at)[0] ?? null;
    },
    /** @param {string} id @param {string} digest @param {Draft} draft */
    save(id, digest, draft) {
      const key = keyOf(id, digest), text = JSON.stringify({ ...draft, at: Date.now() });
      try {
        if (!hasText(draft) && !draft.option) storage.removeItem(key);
        else if (text.length <= LONGEST) storage.setItem(key, text);
        prune(MOST);
      } catch {
        prune(MOST / 4); // the storage is full, or switched off: the text stays in the form
      }
    },
    /** @param {string} id @param {string} digest */
    remove: (id, digest) => storage.removeItem(keyOf(id, digest)),
    /** Removes the drafts of earlier questions of an item. @param {string} id @param {string} digest */
    removeOthers(id, digest) {
      for (const key of keys()) if (key.startsWith(keyOf(id, "")) && key !== keyOf(id, digest)) storage.removeItem(key);
    },
  };
}

/** Removes all drafts of this tab. @param {Storage} storage */
export function clearDrafts(storage) {
  for (let place = storage.length - 1; place >= 0; place--) {
    const key = storage.key(place);
    if (key?.startsWith(PREFIX)) storage.removeItem(key);
  }
}
