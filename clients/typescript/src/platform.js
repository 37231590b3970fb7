// Node 18 has no global `crypto`, which `exact.js` uses. Only for Node: browsers have it.
// @ts-ignore: the package needs no types of Node
import { webcrypto } from "node:crypto";

if (globalThis.crypto === undefined) Object.defineProperty(globalThis, "crypto", { value: webcrypto, configurable: true });
