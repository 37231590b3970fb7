// What begins first, before the page can be drawn: with few modules, the list is on its way while the others come.
import { openSession } from "./state/page_state.js";
import { applyTheme } from "./state/theme.js";

applyTheme();
openSession();
