// Searches for markdown that takes the parser long: `node fuzz-markdown.mjs SECONDS [SEED]`. Texts consist of repeated
// markers, nesting and mixtures. A text that takes more than LONG milliseconds is printed as a seed for
// tests/data/markdown-seeds.json.
import { toHtml } from "../../api/static/attn/text/markdown_worker.js";

const LONG = 400, SIZE = 32_000; // milliseconds, characters
const MARKS = [
  "*", "_", "**", "__", "~~", "`", "``", "[", "]", "](", "![", "!", "<", ">", "> ", "- ", "- [x] ", "1. ", "# ", "|", "|-", "|a", "\n", "\n\n", "  \n", "\\", "\\\n", " ", "    ", "\t",
  "a", "_a", "*a", "a*", "@", ".", ":", "://", "http://", "www.", "a@", "a@a.", "&", "&amp;", "&#", ";", "<a", "<!--", "-->", "<![CDATA[", "<?", "[a]: ", "[a]", "[a][", "\"", "'", "(", ")", "((", "$", "^", "=", "===\n", "---\n",
  "```\n", "~~~", "\u0000", "\u00a0", "é", "😀", "\ud83d", "\u202e", "{", "}",
];
let state = Number(process.argv[3] ?? Date.now() % 2147483648);
const random = (most) => Math.floor(((state = (state * 1103515245 + 12345) % 2147483648) / 2147483648) * most);
const mark = () => Array.from({ length: 1 + random(3) }, () => MARKS[random(MARKS.length)]).join("");

const seen = new Map();
let runs = 0;
for (const until = Date.now() + 1000 * Number(process.argv[2] ?? 60); Date.now() < until; runs++) {
  const parts = 1 + random(3);
  const pieces = Array.from({ length: parts }, () => [mark(), 1]).map(([text]) => [text, Math.max(1, Math.floor(SIZE / text.length / parts))]);
  if (random(2)) pieces.push([mark(), 1]);
  if (random(3) === 0) pieces.unshift([mark(), 1]);
  const text = pieces.map(([one, times]) => one.repeat(times)).join("");
  const began = performance.now();
  toHtml(text);
  const took = Math.round(performance.now() - began);
  const name = pieces.map(([one]) => one).join("\u0001");
  if (took > LONG && !seen.has(name)) {
    seen.set(name, took);
    console.log(JSON.stringify({ took, pieces }));
  }
}
console.error(`${runs} texts of ${SIZE} characters, ${seen.size} slower than ${LONG} ms, slowest ${Math.max(0, ...seen.values())} ms`);
