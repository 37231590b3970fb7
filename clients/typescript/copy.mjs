// Copies the modules of attn's page that this package publishes. `node copy.mjs`, in a checkout of attn; `--types` copies the
// hand-written declarations beside the generated ones.
import { copyFileSync, existsSync, mkdirSync } from "node:fs";

export const MODULES = ["fold.js", "sse.js", "backoff.js", "exact.js", "types.d.ts"];
const page = new URL("../../api/static/attn/", import.meta.url);
const here = new URL("./src/page/", import.meta.url);

if (process.argv[2] === "--types") {
  mkdirSync(new URL("./types/page/", import.meta.url), { recursive: true });
  copyFileSync(new URL("types.d.ts", here), new URL("./types/page/types.d.ts", import.meta.url));
} else if (existsSync(page)) {
  for (const name of MODULES) copyFileSync(new URL(name, page), new URL(name, here));
}
