// What begins first, before the page can be drawn: with few modules, the list is on its way while the others come.
import { begin } from "./state/page_state.js";
import { wear } from "./state/theme.js";

wear();
begin();
