// What begins first, before the page can be drawn: with few modules, the list is on its way while the others come.
import { begin } from "./model.js";
import { wear } from "./theme.js";

wear();
begin();
