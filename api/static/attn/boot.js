// Entry that runs first: applies the theme, signs in by the link of the address, and requests the list. It imports few modules, so the request is sent while the
// other modules are still loading.
import { openSession, signInByLink } from "./state/page_state.js";
import { takeLink } from "./state/sign_in_link.js";
import { applyTheme } from "./state/theme.js";

applyTheme();
const link = takeLink();
if (link) signInByLink(link);
else openSession();
addEventListener("hashchange", () => {
  const later = takeLink(); // a link that was opened in the tab of this page
  if (later) signInByLink(later);
});
