// A client on the TypeScript SDK: node mcp_client.mjs SDK URL KEY QUESTION TIMEOUT_MS ABORT_MS. Calls ask_human and
// prints the result, or {"error": ...}. ABORT_MS 0: does not abort.
const [sdk, url, key, question, timeout, abort] = process.argv.slice(2);
const { Client } = await import(`${sdk}/client/index.js`);
const { StreamableHTTPClientTransport } = await import(`${sdk}/client/streamableHttp.js`);

const client = new Client({ name: "typescript", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } } }));
const aborting = new AbortController();
if (Number(abort)) setTimeout(() => aborting.abort("the user pressed Escape"), Number(abort));
let progress = 0;
try {
  const result = await client.callTool({ name: "ask_human", arguments: { question } }, undefined, {
    timeout: Number(timeout), signal: aborting.signal, onprogress: () => { progress += 1; } });
  console.log(JSON.stringify({ ...result.structuredContent, progress }));
} catch (error) {
  console.log(JSON.stringify({ error: String(error), progress }));
}
await new Promise((resolve) => setTimeout(resolve, 1000)); // a close would abort a cancellation that is being sent
await client.close();
