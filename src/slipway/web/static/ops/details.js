/** The tables below the charts: models, zones, what answered, errors, money, alerts, feedback, documents, and the server itself. */

import { button, el } from "../dom.js";
import { NONE, ago, count, moment, money, seconds, share } from "./format.js";
import { Table, badge, meter } from "./table.js";
import { among, say } from "./words.js";

const STATES = { closed: "good", "half-open": "warn", open: "bad" };
const BLAMES = { server: "bad", limit: "warn", client: "none", left: "none" };
const DOCUMENT_STATES = { done: "good", partly: "warn", failed: "bad", reading: "none" };
const BAD_SHARE = 0.05;

const named = (list, key) => among(list, key) ?? key;
const failedShare = (row) => (row.error_share == null ? NONE : row.error_share >= BAD_SHARE ? badge("bad", share(row.error_share)) : share(row.error_share));
const ttft = ({ ttft: { p50, p95 } }) => (p95 == null ? NONE : `${seconds(p50)} · ${seconds(p95)}`);

let now = 0; // seconds since the epoch, by the server's clock
let parts = null;

/** Draws all tables; `openAnswer(id)` shows the trace of an answer. */
export function drawDetails(data, openAnswer) {
  now = data.at;
  parts ??= makeParts(openAnswer);
  parts.alerts.draw(data.alerts);
  parts.alerts.element.hidden = !data.alerts.length;
  parts.models.draw(data.models);
  parts.zones.draw(data.zones);
  parts.zones.element.hidden = data.zones.length < 2;
  parts.served.draw(withShare(data.served_by));
  parts.errors.draw(data.errors);
  parts.cache.draw(cacheRows(data));
  parts.apps.draw(data.apps);
  parts.money.draw(data);
  parts.limits.draw(limitRows(data.limits));
  parts.limits.element.hidden = !data.limits.length;
  parts.feedback.draw(data.feedback);
  parts.collections.draw(data.documents.apps);
  parts.collections.element.hidden = !data.documents.apps.length;
  parts.documents.draw(data.documents.data);
  parts.documents.element.hidden = !data.documents.apps.length;
  parts.server.draw(serverRows(data));
}

/** The element that the recent answers are put behind. */
export const placeForAnswers = (element) => parts.feedback.element.before(element);

function makeParts(openAnswer) {
  const found = {
    alerts: alertTable(),
    models: modelTable(),
    zones: zoneTable(),
    served: servedTable(),
    errors: errorTable(),
    cache: cacheTable(),
    apps: appTable(),
    limits: limitTable(),
    money: new MoneyTable(),
    feedback: feedbackTable(openAnswer),
    documents: documentTable(),
    collections: collectionTable(),
    server: serverTable(),
  };
  for (const name of ["alerts", "models", "money", "feedback", "documents"]) found[name].element.classList.add("whole");
  for (const name of ["feedback", "documents"]) found[name].element.classList.add("long");
  document.getElementById("details").append(...Object.values(found).map((part) => part.element));
  return found;
}

function alertTable() {
  const level = ({ severity, state }) => (state === "pending" ? "none" : severity === "page" ? "bad" : "warn");
  const runbook = ({ runbook: href }) => (/^https?:\/\//.test(href ?? "") ? el("a", { href, textContent: say("runbook"), target: "_blank", rel: "noreferrer" }) : (href ?? NONE));
  return new Table(
    say("alerts"),
    [
      { title: say("alert"), cell: (row) => badge(level(row), row.name, row.state === "pending" ? say("pending") : "") },
      { title: say("alertWhat"), prose: true, cell: ({ summary }) => summary ?? "" },
      { title: say("since"), cell: ({ fired_at, since }) => (fired_at ?? since ? ago(now - (fired_at ?? since)) : NONE) },
      { title: say("whatToDo"), prose: true, cell: ({ action }) => action ?? NONE },
      { title: say("runbook"), cell: runbook },
    ],
    { key: ({ name, labels }) => `${name} ${JSON.stringify(labels ?? {})}`, none: say("noAlerts") },
  );
}

function modelTable() {
  const state = (row) => {
    if (row.state == null) return NONE;
    if (row.state === "closed" && row.rests_s) return badge("warn", say("rests"), say("restsFor", seconds(row.rests_s)));
    return badge(STATES[row.state], among("states", row.state), row.state === "closed" ? "" : say("stateWhy", row.why ?? "", row.for_s == null ? "" : ago(row.for_s)));
  };
  return new Table(
    say("models"),
    [
      { title: say("model"), cell: ({ model }) => model },
      { title: say("zone"), cell: ({ zone }) => zone || NONE },
      { title: say("breaker"), cell: state },
      { title: say("callsRunning"), number: true, cell: ({ running, waiting }) => (running == null ? NONE : `${count(running)} · ${count(waiting)}`) },
      { title: say("calls"), number: true, cell: ({ calls }) => count(calls) },
      { title: say("errorShare"), number: true, cell: failedShare },
      { title: say("ttftColumn"), number: true, cell: ttft },
      { title: say("cost"), number: true, cell: ({ cost_usd }) => money(cost_usd) },
    ],
    { key: ({ model }) => model, none: say("noModels") },
  );
}

function zoneTable() {
  return new Table(
    say("zones"),
    [
      { title: say("zone"), cell: ({ zone }) => zone },
      { title: say("calls"), number: true, cell: ({ calls }) => count(calls) },
      { title: say("errorShare"), number: true, cell: failedShare },
      { title: say("ttftColumn"), number: true, cell: ttft },
    ],
    { key: ({ zone }) => zone, none: say("noCalls") },
  );
}

function withShare(rows) {
  const all = rows.reduce((sum, { answers }) => sum + answers, 0);
  return rows.map((row) => ({ ...row, share: row.answers / all }));
}

function servedTable() {
  return new Table(
    say("served"),
    [
      { title: say("servedBy"), cell: ({ served_by }) => named("served_by", served_by) },
      { title: say("answers"), number: true, cell: ({ answers }) => count(answers) },
      { title: say("part"), cell: (row) => partBar(row.share) },
    ],
    { key: ({ served_by }) => served_by, none: say("noAnswers") },
  );
}

function partBar(part) {
  const bar = el("span", { className: "bar", ariaHidden: "true" }, el("span"));
  bar.firstChild.style.width = `${Math.max(1, Math.round(part * 100))}%`;
  const node = el("span", { className: "meter" }, bar, el("span", { textContent: share(part) }));
  node.dataset.shown = share(part);
  return node;
}

function errorTable() {
  return new Table(
    say("errors"),
    [
      { title: say("code"), cell: ({ code }) => el("code", { textContent: code }) },
      { title: say("means"), prose: true, cell: ({ code }) => among("codes", code) ?? "" },
      { title: say("blame"), cell: ({ blame }) => badge(BLAMES[blame], among("blames", blame)) },
      { title: say("answers"), number: true, cell: ({ answers }) => count(answers) },
    ],
    { key: ({ code }) => code, none: say("noErrors") },
  );
}

/** What was saved, by what saved it, and how often the cache was asked in vain. */
function cacheRows({ saved, cache }) {
  const misses = cache.filter(({ state }) => state === "miss" || state === "refresh").map(({ state, answers }) => ({ by: state, answers, usd: undefined }));
  return [...saved.data, ...misses];
}

function cacheTable() {
  return new Table(
    say("savings"),
    [
      { title: say("savedBy"), cell: ({ by }) => named("saved_by", by) },
      { title: say("answers"), number: true, cell: ({ answers }) => count(answers) },
      { title: say("savedMoney"), number: true, cell: ({ usd }) => (usd === undefined ? NONE : money(usd)) },
    ],
    { key: ({ by }) => by, none: say("noSavings") },
  );
}

function appTable() {
  return new Table(
    say("apps"),
    [
      { title: say("app"), cell: ({ app }) => app },
      { title: say("answers"), number: true, cell: ({ answers }) => count(answers) },
      { title: say("errorShare"), number: true, cell: (row) => failedShare({ error_share: row.failed / row.answers }) },
      { title: say("ttftColumn"), number: true, cell: ttft },
    ],
    { key: ({ app }) => app, none: say("noAnswers") },
  );
}

/** Tokens and money, by app, key, tenant or model, with the budgets of those that have one. */
class MoneyTable {
  constructor() {
    this.by = "app";
    this.table = new Table(
      say("money"),
      [
        { title: say("name"), cell: (row) => row.name },
        { title: say("calls"), number: true, cell: ({ calls }) => count(calls) },
        { title: say("tokensIn"), number: true, cell: (row) => count(row.input_tokens) },
        { title: say("tokensOut"), number: true, cell: (row) => count(row.output_tokens) },
        { title: say("cost"), number: true, cell: ({ cost_usd, unknown }) => (unknown ? badge("warn", money(cost_usd), say("unknownCalls", count(unknown))) : money(cost_usd)) },
        { title: say("budget"), cell: budgetCell },
      ],
      { key: ({ id }) => id, none: say("noMoney") },
    );
    this.element = this.table.element;
    const radios = ["app", "key", "tenant", "model"].map((by) => this.radio(by));
    this.table.heading.after(el("fieldset", { className: "switch" }, el("legend", { className: "unseen", textContent: say("moneyBy") }), ...radios));
    this.table.scroller.before((this.error = el("p", { className: "none", hidden: true })));
  }

  radio(by) {
    const input = el("input", { type: "radio", name: "money", value: by, checked: by === this.by });
    input.onchange = () => {
      this.by = by;
      this.draw(this.data);
    };
    return el("label", {}, input, el("span", { textContent: say(`by_${by}`) }));
  }

  draw(data) {
    this.data = data;
    this.error.hidden = !data.money_error;
    this.error.textContent = data.money_error ? say("moneyError", data.money_error) : "";
    const budgets = new Map(data.limits.filter(({ of }) => of === this.by).map((limit) => [limit.name, limit.budgets]));
    const rows = data.money[this.by].map((row) => ({ ...row, budgets: budgets.get(row.id) ?? [] }));
    const shown = new Set(rows.map(({ id }) => id));
    const idle = [...budgets].filter(([name, found]) => found.length && !shown.has(name));
    const nothing = { calls: 0, unknown: 0, input_tokens: 0, output_tokens: 0, cost_usd: "0" };
    this.table.draw([...rows, ...idle.map(([name, found]) => ({ ...nothing, id: name, name, budgets: found }))]);
  }
}

function budgetCell({ budgets }) {
  if (!budgets.length) return NONE;
  const bars = budgets.map(({ period, spent_usd, limit_usd }) => meter(Number(spent_usd), Number(limit_usd), say(`budget_${period}`, money(spent_usd), money(limit_usd))));
  const node = el("span", { className: "meters" }, ...bars);
  node.dataset.shown = bars.map((bar) => bar.dataset.shown).join();
  return node;
}

function limitRows(limits) {
  return limits.flatMap(({ of, name, ...limit }) => ["answers", "rpm", "tpm"].filter((kind) => limit[kind]).map((kind) => ({ of, name, kind, ...limit[kind] })));
}

function limitTable() {
  return new Table(
    say("limits"),
    [
      { title: say("limitOf"), cell: ({ of, name }) => `${say(`by_${of}`)} ${name}` },
      { title: say("limit"), cell: ({ kind }) => say(`limit_${kind}`) },
      { title: say("used"), cell: ({ used, limit }) => meter(used, limit, say("usedOf", count(used), count(limit))) },
    ],
    { key: ({ of, name, kind }) => `${of} ${name} ${kind}`, none: "" },
  );
}

function feedbackTable(openAnswer) {
  const vote = ({ kind, helpful }) => (kind === "report" ? badge("warn", say("report")) : badge(helpful ? "good" : "bad", say(helpful ? "helpful" : "unhelpful")));
  return new Table(
    say("feedback"),
    [
      { title: say("when"), cell: ({ at }) => moment(at, now) },
      { title: say("vote"), cell: vote },
      { title: say("comment"), prose: true, cell: ({ comment, reasons }) => comment || (reasons ?? []).map((each) => named("reasons", each)).join(", ") || NONE },
      { title: say("question"), prose: true, cell: ({ question }) => question ?? NONE },
      { title: say("app"), cell: ({ app }) => app },
      { title: say("servedBy"), cell: ({ served_by, model }) => model || named("served_by", served_by) || NONE },
      { title: say("trace"), stays: true, cell: ({ answer }) => button(say("show"), () => openAnswer(answer), { className: "quiet", ariaLabel: say("showAnswer", answer) }) },
    ],
    { key: ({ id }) => id, none: say("noFeedback") },
  );
}

function collectionTable() {
  const state = ({ ready, scanning, read }) => badge(ready ? "good" : "warn", ready ? say(scanning ? "checking" : "ready") : say("readingShare", read));
  return new Table(
    say("knowledge"),
    [
      { title: say("app"), cell: ({ app }) => app },
      { title: say("state"), cell: state },
      { title: say("documentsCount"), number: true, cell: ({ documents }) => count(documents) },
      { title: say("unread"), number: true, cell: ({ failed }) => (failed ? badge("bad", count(failed)) : "0") },
      { title: say("passages"), number: true, cell: ({ passages }) => count(passages) },
      { title: say("dense"), cell: ({ dense }) => dense },
    ],
    { key: ({ app }) => app, none: "" },
  );
}

function documentTable() {
  return new Table(
    say("documents"),
    [
      { title: say("document"), cell: ({ path }) => path },
      { title: say("state"), cell: ({ state }) => badge(DOCUMENT_STATES[state], among("document_states", state)) },
      { title: say("whatToDo"), prose: true, cell: ({ error, reason, next }) => error ?? ([reason, next].filter(Boolean).join(" ") || NONE) },
      { title: say("passages"), number: true, cell: ({ passages }) => count(passages) },
      { title: say("readAt"), cell: ({ read_at }) => (read_at ? ago(now - read_at) : NONE) },
      { title: say("app"), cell: ({ app }) => app },
    ],
    { key: ({ app, id }) => `${app} ${id}`, none: say("noDocuments") },
  );
}

function serverRows({ now: { workers, store, started_at }, at }) {
  const rows = [
    ["started", ago(at - started_at)],
    ["store", store.reason ? badge("bad", say("storeDown"), store.reason) : badge("good", say("storeUp"))],
    ["storeWaiting", count(store.waiting)],
  ];
  if (store.lost) rows.push(["storeLost", badge("bad", count(store.lost))]);
  if (!workers) return rows;
  const { configured, running, restarts } = workers;
  return [...rows, ["workers", badge(running < configured ? "warn" : "good", say("usedOf", count(running), count(configured)))], ["restarts", count(restarts)]];
}

function serverTable() {
  return new Table(
    say("server"),
    [
      { title: say("name"), cell: ([name]) => say(`server_${name}`) },
      { title: say("state"), cell: ([, value]) => value },
    ],
    { key: ([name]) => name, none: "" },
  );
}
