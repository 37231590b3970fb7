// The address that `attn login` shows, `/#device=...`: opens the card once the person is signed in. Until then the fragment stays, so
// signing in with the company's account leads back to it. Loaded with the first such address.
import { page } from "../state/page_state.js";
import { requestIn } from "./terminal_form.js";

function openCard() {
  const { phase, me } = page.get(), asked = requestIn(location.hash);
  if (!asked || phase !== "in" || !me?.user_id) return;
  history.replaceState(null, "", location.pathname + location.search);
  page.set({ dialog: "terminal", terminal: asked });
}

page.listen(openCard);
addEventListener("hashchange", openCard);
openCard();
