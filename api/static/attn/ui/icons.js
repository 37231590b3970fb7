// Icons as SVG paths on a 24 x 24 grid. They are decorative: each one stands beside a text.
import { html } from "./dom.js";

/** @type {Record<string, string>} */
const PATHS = {
  pause: "M9 5v14M15 5v14",
  escalate: "M12 20V5M5 12l7-7 7 7",
  failed: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9 9l6 6M15 9l-6 6",
  incident: "M12 3l9 5-9 5-9-5zM3 13l9 5 9-5M3 17.5l9 5 9-5",
  message: "M4 5h16v11H9l-5 4z",
  question: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9.5 9.3a2.6 2.6 0 1 1 3.6 2.6c-.8.4-1.1.9-1.1 1.8M12 16.8v.2",
  plan: "M4 6l1.5 1.5L8 5M4 12l1.5 1.5L8 11M4 18l1.5 1.5L8 17M11.5 6.5H20M11.5 12.5H20M11.5 18.5H20",
  action: "M13 2L5 13.5h6L10 22l9-12h-6.5z",
  draft: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  case: "M4 8h16v11H4zM9 8V5h6v3M8.5 11.5l7 5M15.5 11.5l-7 5",
  task: "M9.5 14.5l5-5M8 11l-2 2a3.5 3.5 0 0 0 5 5l2-2M16 13l2-2a3.5 3.5 0 0 0-5-5l-2 2",
  proof: "M12 3l7.5 3v5.5c0 4.5-3 8-7.5 9.5-4.5-1.5-7.5-5-7.5-9.5V6zM12 8.5v4M12 15.8v.2",
  expiring: "M7 3h10M7 21h10M8 3v4l4 5-4 5v4M16 3v4l-4 5 4 5v4",
  bell: "M6 16V11a6 6 0 1 1 12 0v5l1.5 2h-15zM10 20.5a2.2 2.2 0 0 0 4 0",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5L20 20",
  check: "M5 12.5l4.5 4.5L19 7.5",
  clock: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 7.5V12l3 2",
  dismissed: "M4 7h16M6 7v12h12V7M9.5 11h5M7 7l1.5-3h7L17 7",
  back: "M9 6l-5 5 5 5M4 11h10a6 6 0 0 1 6 6v1",
  close: "M6 6l12 12M18 6L6 18",
  star: "M12 3.8l2.5 5.2 5.7.8-4.1 4 1 5.7-5.1-2.7-5.1 2.7 1-5.7-4.1-4 5.7-.8z",
  unread: "M4 6h16v12H4zM4 7l8 6 8-6",
  out: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  open: "M13 5h6v6M19 5l-9 9M17 14v5H5V7h5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  auto: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 3.5v17M15 5v14M18 7v10",
  key: "M15 4a5 5 0 1 0 0 10 5 5 0 0 0 0-10M11 12.5L4 20M7 17l2.5 2.5",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5",
  up: "M6 14l6-6 6 6", down: "M6 10l6 6 6-6", grip: "M9 6v.1M15 6v.1M9 12v.1M15 12v.1M9 18v.1M15 18v.1",
  filter: "M4 6h16M7 12h10M10 18h4", chart: "M5 20V11M12 20V4M19 20v-6", inbox: "M4 13l3-8h10l3 8v6H4zM4 13h5l1 2.5h4l1-2.5h5",
  keys: "M3 7h18v10H3zM6.5 10.5v.1M10 10.5v.1M14 10.5v.1M17.5 10.5v.1M8 14h8", tune: "M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4",
};

/** @param {{name: string, size?: number, calm?: boolean}} how */
export const Icon = ({ name, size = 18, calm }) => html`
  <svg class=${calm ? "icon calm" : "icon"} width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name] ?? PATHS.message} /></svg>`;
