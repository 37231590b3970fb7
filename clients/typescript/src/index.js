export { Attn } from "./client.js";
export { AttnError, EventRejected, Expired, Forbidden, NoAnswer, Replaced, RequestFailed, Unauthorized, Unavailable, Withdrawn } from "./errors.js";
export { follow } from "./feed.js";
export { isExact, parse, stringify } from "./page/exact.js";
export { apply, before, EMPTY } from "./page/fold.js";
export { frames } from "./page/sse.js";

/** @typedef {import("./questions.js").Question} Question */
/** @typedef {import("./questions.js").Answer} Answer */
/** @typedef {import("./questions.js").Kind} Kind */
/** @typedef {import("./page/types").Inbox} Inbox */
/** @typedef {import("./page/types").Item} Item */
/** @typedef {import("./page/types").Frame} Frame */
/** @typedef {import("./page/types").DecisionRow} DecisionRow */
