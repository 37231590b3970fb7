// Copies the page's vendored modules out of node_modules: `npm ci && npm run vendor` in this folder.
// The only changes: an imported package is named by its file beside it, and source map references are removed.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const here = (path) => new URL(path, import.meta.url);
const modules = {
  "preact.js": ["preact", "dist/preact.mjs"],
  "hooks.js": ["preact", "hooks/dist/hooks.mjs"],
  "htm.js": ["htm", "dist/htm.mjs"],
  "marked.js": ["marked", "lib/marked.esm.js"],
  "purify.js": ["dompurify", "dist/purify.es.mjs"],
};

const vendored = {};
for (const [name, [pack, path]] of Object.entries(modules)) {
  const { version, license } = JSON.parse(readFileSync(here(`node_modules/${pack}/package.json`), "utf8"));
  const text = readFileSync(here(`node_modules/${pack}/${path}`), "utf8")
    .replace(/from\s*"preact"/g, 'from "./preact.js"')
    .replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n");
  writeFileSync(here(`../../api/static/vendor/${name}`), text);
  const sha256 = createHash("sha256").update(text).digest("hex");
  vendored[name] = { package: pack, version, path, license, sha256 };
}
writeFileSync(here("../../api/static/vendor/vendored.json"), `${JSON.stringify(vendored, null, 2)}\n`);
