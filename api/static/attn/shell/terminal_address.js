// The address that `attn login` shows, `/#device=...`: opens the card once the person is signed in. Until then the fragment stays, so
// signing in with the company's account leads back to it.
import { requestIn } from "../keys/terminal_form.js";
import { page } from "../state/page_state.js";

function openCard() {
  const { phase, me } = page.get(), asked = requestIn(location.hash);
  if (!asked || phase !== "in" || !me?.user_id) return;
  history.replaceState(null, "", location.pathname + location.search);
  page.set({ dialog: "terminal", terminal: asked });
}

/** Opens the card of each such address that the tab shows. */
export function watchTerminals() {
  page.listen(openCard);
  addEventListener("hashchange", openCard);
  openCard();
}
