/** The top of the page: whether users are well served, the numbers, and the charts. */

import { el, setText } from "../dom.js";
import { Chart } from "./chart.js";
import { NONE, amount, count, money, rate, seconds, share } from "./format.js";
import { among, say } from "./words.js";

const $ = (id) => document.getElementById(id);

/** One sentence that says whether users are well served, and why not. */
export function drawVerdict({ verdict, now }) {
  $("verdict").dataset.state = verdict.state;
  const facts = verdict.answers ? say("verdictFacts", count(verdict.answers), share(1 - verdict.error_share), seconds(verdict.ttft_p95_s)) : "";
  setText($("verdict-title"), say(`verdict_${verdict.state}`));
  const reasons = [...verdict.reasons.map((each) => [each.level, reasonWords(each)]), ...(facts ? [["fact", facts]] : [["fact", say("inProgress", now.in_flight)]])];
  const shown = JSON.stringify(reasons);
  if ($("verdict-reasons").dataset.shown === shown) return;
  $("verdict-reasons").dataset.shown = shown;
  $("verdict-reasons").replaceChildren(...reasons.map(([level, textContent]) => el("li", { className: level, textContent })));
}

function reasonWords(reason) {
  const words = among("verdict_reasons", reason.code);
  return words ? words(reason) : reason.text;
}

/** The page's title and icon say it too, for a tab in the background. */
export function titleOf({ state }) {
  const mark = { red: "✕ ", amber: "! " }[state] ?? "";
  return `${mark}${say("titleLong")}`;
}

/** The numbers: [name in the words, value, note, how bad it is]. */
function tiles({ totals, now, goals, saved }) {
  const { ttft, tpot } = totals;
  const late = (value, goal) => (value == null || goal == null || value <= goal ? "" : value > 3 * goal ? "bad" : "warn");
  const failing = totals.error_share > 1 - goals.availability ? (totals.error_share > 10 * (1 - goals.availability) ? "bad" : "warn") : "";
  return [
    ["answers", count(totals.answers), say("perSecond", rate(totals.per_s))],
    ["success", totals.answers ? share(1 - totals.error_share) : NONE, say("failed", count(totals.failed), share(goals.availability)), failing],
    ["ttft", seconds(ttft.p95), say("percentiles", seconds(ttft.p50), seconds(ttft.p99)), late(ttft.p95, goals.ttft_p95_s)],
    ["tpot", seconds(tpot.p95), say("median", seconds(tpot.p50))],
    ["running", count(now.in_flight), say("callsNow", count(now.running), count(now.waiting)), now.waiting > now.running && now.waiting > 3 ? "warn" : ""],
    ["cost", money(totals.cost_usd), totals.unpriced ? say("unpriced", count(totals.unpriced)) : say("tokensOf", count(totals.input_tokens), count(totals.output_tokens)), totals.unpriced ? "warn" : ""],
    ["saved", count(saved.answers), saved.usd === null ? say("savedNothing") : say("savedUsd", money(saved.usd)), ""],
  ];
}

export function drawTiles(data) {
  const found = tiles(data);
  if (!$("tiles").children.length) {
    $("tiles").append(...found.map(([name]) => el("div", { id: `tile-${name}` }, el("dt", { textContent: say(`tile_${name}`) }), el("dd"), el("dd", { className: "note" }))));
  }
  for (const [name, value, note, level = ""] of found) {
    const tile = $(`tile-${name}`);
    const [, shown, below] = tile.children;
    tile.className = level;
    setText(below, note);
    if (shown.dataset.shown === `${value} ${level}`) continue;
    shown.dataset.shown = `${value} ${level}`;
    // a number that is not good is marked for the eye, and in words for who does not see the colour
    shown.replaceChildren(value, ...(level ? [el("span", { className: "unseen", textContent: ` ${say(`level_${level}`)}` })] : []));
  }
}

let charts = null;

export function drawCharts({ series, window_s, goals }) {
  charts ??= makeCharts();
  const { times } = series;
  charts.traffic.draw(times, [series.answers, series.failed], window_s);
  charts.ttft.draw(times, [series.ttft.p50, series.ttft.p95], window_s, goals.ttft_p95_s);
  charts.tpot.draw(times, [series.tpot.p50, series.tpot.p95], window_s);
  charts.cost.draw(times, [series.cost], window_s);
}

function makeCharts() {
  const percentiles = () => [
    { name: say("p50"), className: "first" },
    { name: say("p95"), className: "second" },
  ];
  const found = {
    traffic: new Chart(say("traffic"), say("perSecondUnit"), [{ name: say("answersLine"), className: "first", area: true }, { name: say("failedLine"), className: "third" }], rate),
    ttft: new Chart(say("chart_ttft"), "", percentiles(), seconds),
    tpot: new Chart(say("chart_tpot"), "", percentiles(), seconds),
    cost: new Chart(say("tile_cost"), say("perHourUnit"), [{ name: say("tile_cost"), className: "first", area: true }], amount),
  };
  $("charts").append(...Object.values(found).map((chart) => chart.element));
  return found;
}
