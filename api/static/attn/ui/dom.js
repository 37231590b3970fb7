// Rendering with preact and htm, and the hooks of the page: store, clock, media query.
import htm from "../../vendor/htm.js";
import { h, render } from "../../vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/hooks.js";
import { now } from "../clock.js";
import { page } from "../state/page_state.js";

export const html = htm.bind(h);
export { render, useEffect, useLayoutEffect, useMemo, useRef, useState };

/** Returns the page's state; renders again when it changes. */
export function useStore() {
  const [state, show] = useState(page.get);
  useEffect(() => {
    show(page.get());
    return page.listen((next) => show(next));
  }, []);
  return state;
}

/**
 * Returns the current time, by default the server's; renders again every `step` milliseconds while the page is visible.
 * @param {() => number} [read]
 * @param {number} [step]
 */
export function useClock(read = now, step = 1000) {
  const [time, tick] = useState(read);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || tick(read()), step);
    const seen = () => document.hidden || tick(read());
    document.addEventListener("visibilitychange", seen);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [step]);
  return time;
}

/** Whether a media query matches; renders again when that changes. @param {string} query */
export function useMedia(query) {
  const [matches, show] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const changed = () => show(list.matches);
    list.addEventListener("change", changed);
    changed();
    return () => list.removeEventListener("change", changed);
  }, [query]);
  return matches;
}
