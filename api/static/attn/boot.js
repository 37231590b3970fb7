// Entry that runs first: applies the theme and requests the list. It imports few modules, so the request is sent while the
// other modules are still loading.
import { openSession } from "./state/page_state.js";
import { applyTheme } from "./state/theme.js";

applyTheme();
openSession();
