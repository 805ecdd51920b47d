/** Recent answers, and the trace of one as a waterfall. */

import { button, el, failureNodes } from "../dom.js";
import { get } from "../server.js";
import { failureWords } from "../words.js";
import { NONE, count, moment, money, seconds } from "./format.js";
import { Table, badge } from "./table.js";
import { among, say } from "./words.js";

const named = (list, key) => among(list, key) ?? key;
let table = null;
let now = 0;

/** Makes the table; returns its element. */
export function beginAnswers() {
  table = new Table(
    say("recent"),
    [
      { title: say("when"), cell: ({ at }) => moment(at, now) },
      { title: say("app"), cell: ({ app }) => app },
      { title: say("servedBy"), cell: ({ error, served_by }) => (error ? badge("bad", error) : named("served_by", served_by ?? "") || NONE) },
      { title: say("model"), cell: ({ model }) => model ?? NONE },
      { title: say("tenant"), cell: ({ tenant }) => tenant ?? NONE },
      { title: say("ttft"), number: true, cell: ({ ttft_s }) => seconds(ttft_s) },
      { title: say("duration"), number: true, cell: ({ duration_s }) => seconds(duration_s) },
      { title: say("tokens"), number: true, cell: ({ input_tokens, output_tokens }) => (input_tokens == null ? NONE : `${count(input_tokens)} · ${count(output_tokens)}`) },
      { title: say("cost"), number: true, cell: ({ cost_usd }) => money(cost_usd) },
      { title: say("trace"), stays: true, cell: ({ id }) => button(say("show"), () => openAnswer(id), { className: "quiet", ariaLabel: say("showAnswer", id) }) },
    ],
    { key: ({ id }) => id, none: say("noRecent"), hint: say("recentHint") },
  );
  table.element.classList.add("whole", "long", "recent");
  return table.element;
}

export function drawAnswers({ recent, at }) {
  now = at;
  table.draw(recent);
}

/** Shows what happened to an answer, in a dialog. */
export async function openAnswer(id) {
  const { openSheet } = await import("../sheet.js");
  const body = el("div", { className: "trace", textContent: say("looking") });
  const dialog = openSheet(say("trace"), el("p", { className: "trail" }, el("code", { textContent: id })), body);
  dialog.classList.add("wide-sheet");
  try {
    const trace = await get(`v1/traces/${encodeURIComponent(id)}`);
    body.replaceChildren(...trace.tries.flatMap((each, n) => tryNodes(each, n, trace.tries.length)));
  } catch (error) {
    body.replaceChildren(el("p", { className: "failure" }, ...failureNodes(failureWords(error.failure))));
  }
}

function tryNodes(found, n, of) {
  const { answer, spans } = found;
  const end = Math.max(answer?.duration_s ?? 0, ...spans.map((span) => span.start_s + span.duration_s), 0.001);
  const name = of > 1 ? say("tryOf", n + 1, of) : "";
  const title = name ? [el("h3", { textContent: name })] : [];
  const rules = found.rules.map(({ rule, reason }) => el("p", { className: "hint", textContent: say("ruleOf", rule, reason) }));
  return [...title, factList(answer), waterfall(spans, end, name), ...rules, ...skippedNodes(answer)];
}

function factList(answer) {
  if (!answer) return el("p", { className: "hint", textContent: say("stillRunning") });
  const { usage } = answer;
  const facts = [
    ["app", answer.app],
    ["servedBy", named("served_by", answer.served_by ?? "")],
    ["model", answer.model],
    ["tenant", answer.tenant],
    ["ttft", answer.ttft_s == null ? null : seconds(answer.ttft_s)],
    ["duration", seconds(answer.duration_s)],
    ["tokens", usage ? `${count(usage.input_tokens)} · ${count(usage.output_tokens)}` : null],
    ["cost", answer.cost_usd == null ? null : money(answer.cost_usd)],
    ["code", answer.error],
  ];
  const shown = facts.filter(([, value]) => value);
  return el("dl", { className: "facts" }, ...shown.map(([name, value]) => el("div", {}, el("dt", { textContent: say(name) }), el("dd", { textContent: value }))));
}

/** What is known of a step, in words. */
function noteOf({ kind, error, facts, cost_usd }) {
  const { zone, why, input_tokens, output_tokens, ttft_s } = facts;
  if (kind === "stage") return [error, ...Object.entries(facts).filter(([name]) => name !== "skipped").map(([name, value]) => `${name} ${value}`)].filter(Boolean).join(" · ");
  const how = facts.kind === "first" ? "" : named("attempt_kinds", facts.kind ?? "");
  const tokens = input_tokens == null ? "" : say("tokensShort", count(input_tokens), count(output_tokens ?? 0));
  return [how, zone === "default" ? "" : zone, error, why, ttft_s == null ? "" : say("firstAfter", seconds(ttft_s)), tokens, Number(cost_usd) ? money(cost_usd) : ""].filter(Boolean).join(" · ");
}

const levelOf = ({ kind, error }) => (error ? (error === "cancelled" ? "none" : "bad") : kind === "attempt" ? "call" : "stage");

/** A table whose last column shows each step on a common time line. */
function waterfall(spans, end, name) {
  const rows = spans.map((span) => {
    const { kind, start_s, duration_s, facts } = span;
    const bar = el("span", { className: `span ${levelOf(span)}` });
    bar.style.left = `${(100 * start_s) / end}%`;
    bar.style.width = `${Math.min(100 - (100 * start_s) / end, (100 * duration_s) / end)}%`;
    if (facts.ttft_s != null && duration_s > 0) {
      const mark = el("i");
      mark.style.left = `${Math.min(100, (100 * facts.ttft_s) / duration_s)}%`;
      bar.append(mark);
    }
    const line = el("td", { className: "line" }, el("span", { className: "lane", ariaHidden: "true" }, bar));
    const note = noteOf(span);
    if (note) line.append(el("small", { textContent: note }));
    const heading = el("th", { scope: "row", className: kind, textContent: kind === "stage" ? named("stages", span.name) : span.name });
    return el("tr", {}, heading, el("td", { className: "number", textContent: seconds(start_s) }), el("td", { className: "number", textContent: seconds(duration_s) }), line);
  });
  const heads = [say("step"), say("startsAt"), say("takes"), say("timeline", seconds(end))];
  const head = el("tr", {}, ...heads.map((textContent, n) => el("th", { scope: "col", className: n === 1 || n === 2 ? "number" : "", textContent })));
  const table = el("table", { className: "waterfall" }, el("thead", {}, head), el("tbody", {}, ...rows));
  return el("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: `${say("waterfall")} ${name}`.trim() }, table);
}

function skippedNodes(answer) {
  const skipped = answer?.skipped ?? [];
  if (!skipped.length) return [];
  const models = skipped.map(([model, why]) => `${model} (${why})`).join(", ");
  return [el("p", { className: "hint", textContent: say("skipped", models) })];
}
