/** Numbers, times and money as people read them. */

import { locale, say } from "./words.js";

const compact = new Intl.NumberFormat(locale, { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exactClock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(locale, { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const NONE = "–";
const DAY_S = 86_400;

export const count = (n) => (n == null ? NONE : n < 100_000 ? plain.format(Math.round(n)) : compact.format(n));

/** Of something per second or so: three digits at most. */
export function rate(n) {
  if (n == null) return NONE;
  if (n === 0) return "0";
  return n < 0.001 ? "<0.001" : n < 1000 ? String(Number(n.toPrecision(2))) : compact.format(n);
}

export function seconds(s) {
  if (s == null) return NONE;
  if (s < 0.0005) return "<1 ms";
  if (s < 0.9995) return `${Math.round(s * 1000)}\u00a0ms`;
  if (s < 9.995) return `${s.toFixed(2)}\u00a0s`;
  return s < 99.95 ? `${s.toFixed(1)}\u00a0s` : say("long", Math.round(s));
}

export function share(part) {
  if (part == null) return NONE;
  const percent = part * 100;
  if (percent > 0 && percent < 0.01) return "<0.01 %";
  if (percent > 99.99 && percent < 100) return ">99.99 %";
  return `${Number(percent.toFixed(percent < 1 || percent > 99 ? 2 : 1))}\u00a0%`;
}

/** An amount of USD without the unit; it may come as text, which is exact. */
export function amount(usd) {
  const value = Number(Number(usd).toPrecision(6)); // without the noise of sums
  if (value === 0) return "0";
  if (value < 0.095) return value.toLocaleString(locale, { maximumSignificantDigits: 2 });
  const digits = value < 1000 ? 2 : 0;
  return value.toLocaleString(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** null is an amount that nobody knows. */
export const money = (usd) => (usd == null ? NONE : `${amount(usd)}\u00a0USD`);

/** The time of day, with the weekday if the chart covers more than a day. */
export const timeIn = (at, span_s) => (span_s <= 600 ? exactClock : span_s <= DAY_S ? clock : day).format(at * 1000);

export const moment = (at, now) => (now - at < DAY_S / 2 ? exactClock : date).format(at * 1000);

/** "3 min ago". */
export function ago(s) {
  const units = [["day", DAY_S], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, each]) => s >= each) ?? units.at(-1);
  return new Intl.RelativeTimeFormat(locale, { numeric: "auto", style: "short" }).format(-Math.max(0, Math.floor(s / size)), unit);
}
