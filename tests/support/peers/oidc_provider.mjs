// A certified OpenID provider (npm oidc-provider) on loopback. Reads its configuration as JSON from stdin and prints
// its port. Tests use /test/* to change accounts and keys, and to read the requests to the token endpoint.
import http from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { generateKeyPairSync, randomUUID } from "node:crypto";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const config = JSON.parse(Buffer.concat(chunks).toString());
const require = createRequire(config.modules + "/package.json");
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

let accounts = config.accounts;
const kinds = { RS256: ["rsa", { modulusLength: 2048 }], PS256: ["rsa", { modulusLength: 2048 }],
  ES256: ["ec", { namedCurve: "P-256" }], ES384: ["ec", { namedCurve: "P-384" }], EdDSA: ["ed25519", {}] };
function key(alg) {
  const [kind, options] = kinds[alg];
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: "jwk" }), use: "sig", kid: randomUUID(), alg };
}

function create(issuer) {
  const provider = new Provider(issuer, {
    clients: config.clients,
    jwks: { keys: [key("RS256"), ...(config.keys ?? []).map(key)] },
    claims: { openid: ["sub", "sid"], profile: ["name"], email: ["email", "email_verified"], groups: ["groups"],
      acr: null, auth_time: null },
    scopes: ["openid", "offline_access", "profile", "email", "groups"],
    acrValues: ["mfa"],
    conformIdTokenClaims: !config.claimsInToken,
    features: { backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true },
      devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS256", "ES256", "ES384", "EdDSA"] },
    cookies: { keys: ["test"] },
    issueRefreshToken: async () => Boolean(config.refresh),
    rotateRefreshToken: true,
    ttl: { AccessToken: 3600, AuthorizationCode: () => codeSeconds, IdToken: config.tokenSeconds ?? 300,
      RefreshToken: 86400, Interaction: 600, Session: 86400, Grant: 86400 },
    // Without its dispatcher, which refuses loopback addresses such as that of attn's back-channel logout.
    fetch: (url, { dispatcher, ...options }) => fetch(url, { ...options, signal: AbortSignal.timeout(5000) }),
    findAccount: async (_, id) => accounts[id] && {
      accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) },
    pkce: { required: () => true },
  });
  provider.on("backchannel.error", (_, error) => console.error(error));
  provider.on("server_error", (_, error) => console.error(error));
  return provider;
}

let callback;
let codeSeconds = 600;  // with a short one, a slow machine could not redeem a code in time
const grants = [];
const server = http.createServer(async (request, response) => {
  if (!request.url.startsWith("/test/")) {
    if (request.url === "/token") grants.push(request.headers.authorization ?? "");
    return callback(request, response);
  }
  const parts = [];
  for await (const chunk of request) parts.push(chunk);
  const body = parts.length ? JSON.parse(Buffer.concat(parts).toString()) : null;
  if (request.url === "/test/accounts") accounts = body;
  if (request.url === "/test/code-seconds") codeSeconds = body;
  if (request.url === "/test/rotate") callback = create(issuer).callback();
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ tokenRequests: grants.length }));
});
await new Promise((resolve) => server.listen(config.port ?? 0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
callback = create(issuer).callback();
console.log(JSON.stringify({ issuer }));
