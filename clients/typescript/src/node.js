// Entry for Node. The import of `platform.js` comes first: it is evaluated before `exact.js`.
import "./platform.js";

export * from "./index.js";
