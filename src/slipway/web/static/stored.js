/** Small choices that this browser remembers, such as the theme. A browser that keeps nothing forgets them at the next reload. */

const PREFIX = "slipway.";
const fallback = new Map();

export const stored = {
  read(name) {
    try {
      return localStorage.getItem(PREFIX + name) ?? fallback.get(name) ?? null;
    } catch {
      return fallback.get(name) ?? null;
    }
  },
  write(name, value) {
    fallback.set(name, value);
    try {
      if (value === null) localStorage.removeItem(PREFIX + name);
      else localStorage.setItem(PREFIX + name, value);
    } catch {
      // it is remembered until the page is left
    }
    if (value === null) fallback.delete(name);
  },
};
