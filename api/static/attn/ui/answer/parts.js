// Parts of the page that are loaded after the list.
import { watchDecided } from "../../commands/decisions.js";

export { ManyAnswers } from "./many_answers.js";
export { MyDecisions } from "./my_decisions.js";
export { Question } from "./question.js";

watchDecided();
