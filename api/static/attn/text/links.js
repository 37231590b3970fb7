// Decides which URLs of foreign text become links. Pure.

const SIGNS = /[\s\\\p{Cc}\p{Cf}]/u; // browsers ignore line ends and tabs, treat `\` as `/`, and apply direction marks

/**
 * Returns an `href` for an `http(s)` URL with a host and without user information, or for a path of this origin. Null for
 * everything else.
 * @param {unknown} address
 * @param {string} [origin]
 * @returns {string | null}
 */
export function linkTo(address, origin = location.origin) {
  if (typeof address !== "string" || SIGNS.test(address)) return null;
  const path = address.startsWith("/");
  if (!path && !/^https?:\/\/[^/?#]/i.test(address)) return null;
  try {
    const url = new URL(address, origin);
    if (path) return !address.startsWith("//") && url.origin === origin ? address : null;
    return url.hostname && !url.username && !url.password ? url.href : null;
  } catch {
    return null;
  }
}
