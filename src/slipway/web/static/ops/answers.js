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
    { key: ({ id }) => id, none: say("noAnswers"), hint: say("recentHint") },
  );
  table.element.classList.add("whole", "long", "recent");
  return table.element;
}

/** `rows` is null if the answers cannot be listed now. */
export function drawAnswers(rows, at) {
  now = at;
  table.empty.textContent = say(rows === null ? "recentFailed" : "noAnswers");
  if (rows !== null || !table.rows.size) table.draw(rows ?? []);
}

/** Shows what happened to an answer, in a dialog. */
export async function openAnswer(id) {
  const { openSheet } = await import("../sheet.js");
  const body = el("div", { className: "trace", textContent: say("looking") });
  const dialog = openSheet(say("traceOf", id), body);
  dialog.classList.add("wide-sheet");
  try {
    const trace = await get(`v1/traces/${encodeURIComponent(id)}`);
    body.replaceChildren(...trace.tries.flatMap((each, n) => tryNodes(each, n, trace.tries.length)));
  } catch (error) {
    body.replaceChildren(el("p", { className: "failure" }, ...failureNodes(failureWords(error.failure))));
  }
}

function tryNodes(found, n, of) {
  const { answer } = found;
  const spans = spansOf(found);
  const end = Math.max(...spans.map(({ start, length }) => start + length), 0.001);
  const title = of > 1 ? [el("h3", { textContent: say("tryOf", n + 1, of) })] : [];
  return [...title, factList(answer), waterfall(spans, end), ...skippedNodes(answer)];
}

/** What was done, when it began (seconds from the question) and how long it took. */
function spansOf({ answer, attempts, rules }) {
  const last = Math.max(answer?.ended_at ?? 0, ...attempts.map(({ ended_at }) => ended_at));
  const began = last - Math.max(answer?.duration_s ?? 0, ...attempts.map((each) => last - each.ended_at + each.duration_s));
  const whole = answer ? [{ name: say("wholeAnswer"), kind: answer.error ? "bad" : "whole", start: 0, length: answer.duration_s, first: answer.ttft_s, note: answer.error ?? named("served_by", answer.served_by ?? "") }] : [];
  const calls = attempts.map((each) => ({
    name: each.model,
    kind: each.error ? (each.error === "cancelled" ? "none" : "bad") : "good",
    start: Math.max(0, each.ended_at - each.duration_s - began),
    length: each.duration_s,
    first: each.ttft_s,
    note: [each.zone === "default" ? "" : each.zone, named("attempt_kinds", each.kind), each.error ?? "", each.why ?? ""].filter(Boolean).join(" · "),
  }));
  const ruled = rules.map(({ rule, reason, shadow }) => ({ name: say("ruleOf", rule), kind: shadow ? "none" : "good", start: 0, length: 0, note: reason }));
  return [...whole, ...ruled, ...calls];
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

/** A table whose last column shows each step on a common time line. */
function waterfall(spans, end) {
  const rows = spans.map(({ name, kind, start, length, first, note }) => {
    const bar = el("span", { className: `span ${kind}` });
    bar.style.left = `${(100 * start) / end}%`;
    bar.style.width = `${Math.max(0.5, (100 * length) / end)}%`;
    if (first != null && length > 0) {
      const mark = el("i", { title: say("ttft") });
      mark.style.left = `${Math.min(100, (100 * first) / length)}%`;
      bar.append(mark);
    }
    const line = el("td", { className: "line" }, el("span", { className: "lane", ariaHidden: "true" }, bar));
    if (note) line.append(el("small", { textContent: note }));
    return el("tr", {}, el("th", { scope: "row", textContent: name }), el("td", { className: "number", textContent: seconds(start) }), el("td", { className: "number", textContent: seconds(length) }), line);
  });
  const heads = [say("step"), say("startsAt"), say("takes"), say("timeline", seconds(end))];
  const table = el("table", { className: "waterfall" }, el("thead", {}, el("tr", {}, ...heads.map((textContent, n) => el("th", { scope: "col", className: n === 1 || n === 2 ? "number" : "", textContent })))), el("tbody", {}, ...rows));
  return el("div", { className: "scroller", tabIndex: 0, role: "region", ariaLabel: say("waterfall") }, table);
}

function skippedNodes(answer) {
  const skipped = answer?.skipped ?? [];
  if (!skipped.length) return [];
  return [el("p", { className: "hint", textContent: say("skipped", skipped.map(([model, why]) => `${model} (${why})`).join(", ")) })];
}
