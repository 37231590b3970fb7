// Which addresses of foreign text the page makes links of. Pure.

const SIGNS = /[\s\\\p{Cc}\p{Cf}]/u; // browsers drop line ends and tabs, read `\` as `/`, and obey signs of direction

/**
 * An `http(s)` URL with a host and without a user, or a path of this origin: as it is written, to be an `href`. Null if
 * it is anything else, or would lead elsewhere than it reads.
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
