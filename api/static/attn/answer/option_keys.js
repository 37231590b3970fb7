// Assigns one key to each answer of a question. Pure. The key depends on what the answer does, so `r` never approves.

/** @typedef {import("../types").Option} Option */
/** @typedef {import("../types").Does} Does */

/** Keys of the list and the page (`shell/shortcuts.js`), and of the open question: `c` comment, `n` next question. */
export const TAKEN = new Set([..."jkoxdsuzcn./?A1234"]);

/** @type {Record<Does, string>} The key of the first option that does it; `""`: by its title. */
const BY_EFFECT = { approve: "a", acknowledge: "a", reject: "r", edit: "e", respond: "w", ignore: "i", retry: "t", choose: "" };

/** Keys of the other options. `a`, `r` and `e` keep their meaning. */
const OTHERS = [..."bfghilmpqtvwy567890"];

/**
 * Returns the key of each option by its id; null for an option without a free key.
 * @param {readonly Option[]} options
 * @returns {Map<string, string | null>}
 */
export function optionKeys(options) {
  /** @type {Map<string, string | null>} */
  const keys = new Map();
  const used = new Set(TAKEN);
  /** @param {Option} option @param {string | undefined} key */
  const take = (option, key) => {
    if (!key || used.has(key)) return;
    used.add(key);
    keys.set(option.id, key);
  };
  for (const option of options) take(option, BY_EFFECT[option.does]);
  for (const option of options) {
    if (keys.has(option.id)) continue;
    const named = [...`${option.title ?? ""}${option.id}`.toLowerCase()].filter((sign) => OTHERS.includes(sign));
    take(option, [...named, ...OTHERS].find((sign) => !used.has(sign)));
    if (!keys.has(option.id)) keys.set(option.id, null);
  }
  return keys;
}

/** @type {Record<Does, string>} */
const TITLES = {
  approve: "Approve", reject: "Reject", edit: "Edit", respond: "Answer", ignore: "Ignore", retry: "Retry", acknowledge: "Acknowledge", choose: "Choose",
};

/** Returns the text of an option's button. @param {Pick<Option, "id" | "does" | "title">} option */
export const optionTitle = ({ id, does, title }) => title ?? (does === "choose" ? id : TITLES[does] ?? id);

/** @type {Record<Does, string>} */
const PAST = {
  approve: "approved", reject: "rejected", edit: "approved with changes", respond: "answered", ignore: "ignored", retry: "retried",
  acknowledge: "acknowledged", choose: "chose",
};

/**
 * Returns what a person did, for example `approved` or `chose “EU”`.
 * @param {string} id of the option
 * @param {string | undefined} does
 * @param {readonly Option[]} options
 */
export function optionDone(id, does, options) {
  const option = options.find((one) => one.id === id), effect = /** @type {Does} */ (option?.does ?? does);
  const alone = options.filter((one) => one.does === effect).length <= 1;
  if (effect === "choose" || !alone || !(effect in PAST)) return `${effect in PAST ? PAST[effect] : "chose"} “${option ? optionTitle(option) : id}”`;
  return PAST[effect];
}

/**
 * Whether an answer needs a second press: it is marked `danger`, or it runs an action that can't be undone.
 * @param {Option} option
 * @param {import("../types").Action | undefined} action
 */
export const needsSecondPress = (option, action) => option.style === "danger"
  || (["approve", "edit", "retry"].includes(option.does) && (action?.reversible === false || action?.risk === "critical"));
