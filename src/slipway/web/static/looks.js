/** How the page looks: colours and text size, as the reader chose them in this browser. */

import { stored } from "./stored.js";

const THEMES = ["system", "light", "dark"];
const SIZES = ["small", "medium", "large", "largest"];

export const themes = THEMES;
export const sizes = SIZES;
export const theme = () => (THEMES.includes(stored.read("theme")) ? stored.read("theme") : "system");
export const size = () => (SIZES.includes(stored.read("size")) ? stored.read("size") : "medium");
export const isDark = () => (theme() === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme() === "dark");

export function applyLooks() {
  const { dataset } = document.documentElement;
  dataset.theme = theme();
  dataset.size = size();
}
