// The dashboard: asks /admin/summary once a second while it is seen, and shows what it says.
// What comes from the gateway, and so from clients and upstreams, is put in as text, never as HTML.
"use strict";

const POLL_MS = 1000, RETRY_MS = 3000, SHARE_SECONDS = 60, SHARE_SECONDS_MIN = 15;
const ROWS_MAX = 60, TARGETS_MAX = 200;
const TOKEN_KEY = "perilune.token";
const $ = (id) => document.getElementById(id);

const page = {
  token: sessionStorage.getItem(TOKEN_KEY), last: 0, records: [], rows: new Map(), opened: new Set(),
  tries: [], summary: null, targets: new Map(), timer: 0, busy: false, acting: false,
};

// ---- small things ------------------------------------------------------------------------------

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const list = (value) => Array.isArray(value) ? value : [];
const count = (value) => Number(value || 0).toLocaleString("en");
const GAP = "\u00a0"; // between a number and its unit
const percent = (ratio) => (ratio >= 0.9995 || ratio === 0 ? Math.round(ratio * 100)
  : (ratio * 100).toFixed(1)) + `${GAP}%`;

function duration(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms < 1000) return `${Math.round(ms)}${GAP}ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)}${GAP}s`;
  return rough(ms);
}

// To the second.
function rough(ms) {
  const s = Math.ceil(ms / 1000);
  if (s < 60) return `${s}${GAP}s`;
  if (s < 3600) return `${Math.floor(s / 60)}${GAP}min ${s % 60}${GAP}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}${GAP}h ${Math.floor(s / 60) % 60}${GAP}min`;
  return `${Math.floor(s / 86400)}${GAP}d ${Math.floor(s / 3600) % 24}${GAP}h`;
}

function clock(wall) {
  const date = new Date(wall);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
}

function notice(text, bad) {
  $("notice").hidden = !text;
  $("notice").className = bad ? "bad" : "";
  say($("notice"), text || "");
}

// ---- the gateway -------------------------------------------------------------------------------

async function ask(path, options) {
  const headers = page.token ? { Authorization: `Bearer ${page.token}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (answer.status === 401) throw Object.assign(new Error("token"), { token: true });
  const text = await answer.text();
  let body = {};
  try { body = JSON.parse(text); } catch { /* said below */ }
  if (!answer.ok) {
    throw new Error(body.error && body.error.message || `the gateway answered ${answer.status}`);
  }
  return body;
}

async function login() {
  if ($("login").open) return;
  $("login-problem").hidden = page.token === null;
  $("token").value = "";
  $("login").showModal();
}

$("login").addEventListener("close", () => {
  page.token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem(TOKEN_KEY, page.token);
  poll();
});

function again(ms) {
  clearTimeout(page.timer);
  page.timer = setTimeout(poll, ms);
}

async function poll() {
  if (page.busy || $("login").open || document.hidden) return;
  page.busy = true;
  let wait = POLL_MS;
  try {
    show(await ask(`/admin/summary?since=${page.last}`));
    if ($("in-flight").open) await showInFlight();
  } catch (problem) {
    if (problem.token) {
      state("locked", "slow");
      login();
    } else {
      state("no connection", "bad");
      wait = RETRY_MS;
    }
  }
  page.busy = false;
  again(wait);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });

// ---- now ---------------------------------------------------------------------------------------

function state(text, kind) {
  say($("state"), text);
  $("state").className = `chip ${kind}`;
}

function line(points, highest, kind) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const step = 240 / 59, first = 60 - points.length;
  node.setAttribute("points", points.map((value, index) =>
    `${((first + index) * step).toFixed(1)},${(38 - 36 * value / highest).toFixed(1)}`).join(" "));
  if (kind) node.setAttribute("class", kind);
  return node;
}

function showNow(summary) {
  const minute = summary.last_minute || {};
  const requests = list(minute.requests_by_second), failures = list(minute.failures_by_second);
  const highest = Math.max(1, ...requests);
  if (summary.draining) state("draining", "slow");
  else if (summary.ready) state("ready", "ok");
  else state("no usable target", "bad");
  say($("about"), `generation ${summary.generation.number} · ${summary.workers} workers · ` +
    `up ${rough(summary.up_ms)} · ${summary.version}`);
  const rate = summary.requests_per_second;
  say($("rate"), rate >= 100 ? count(Math.round(rate)) : rate.toFixed(1));
  say($("success"), minute.success_ratio === null ? "–" : percent(minute.success_ratio));
  say($("failed"), minute.failed ? `${count(minute.failed)} failed in the last minute`
    : "last minute");
  say($("p50"), duration(minute.first_token_p50_ms));
  say($("p99"), duration(minute.first_token_p99_ms));
  say($("flight"), count(summary.in_flight));
  $("spark").replaceChildren(line(requests, highest), line(failures, highest, "failures"));
  $("drain").disabled = summary.draining;
  $("reload").disabled = summary.draining;
}

// ---- targets -----------------------------------------------------------------------------------

const WHY = {
  consecutive_5xx: "too many 5xx in a row", consecutive_gateway: "too many gateway errors in a row",
  consecutive_connection: "cannot be connected", failure_ratio: "too many failures",
  success_ewma: "too few successes", retry_after: "asked to be left alone", auth: "key refused",
  unhealthy: "judged unhealthy", active_check: "health check failed",
  probe_failed: "its probe failed", policy: "ejected by a policy",
  operator: "ejected by the operator", drained: "drained by the operator",
};

function words(code) {
  return code ? WHY[code] || code.replaceAll("_", " ") : "";
}

function stateOf(target, provider) {
  if (!target.fit) {
    return target.state === "half_open" ? ["probing", "slow"]
      : [target.why === "drained" ? "drained" : "out", target.why === "drained" ? "slow" : "bad"];
  }
  if (provider && !provider.fit) return ["provider out", "bad"];
  if (target.state === "half_open") return ["probing", "slow"];
  if (target.ramp_ratio !== undefined) return ["starting", "slow"];
  return ["in", "ok"];
}

// How the tries of the last minute have fallen on the targets: by how their counts have grown.
function noteTries(summary) {
  const now = new Map(list(summary.targets).map((target) => [target.name, target.tries]));
  for (const provider of list(summary.providers)) now.set(`provider ${provider.name}`, provider.tries);
  page.tries.push({ at: summary.now_wall_ms, counts: now });
  while (page.tries.length > SHARE_SECONDS + 1) page.tries.shift();
}

// When it has just begun to look, since the gateway's start.
function triesOf(name) {
  const newest = page.tries[page.tries.length - 1].counts.get(name) || 0;
  if (page.tries.length < SHARE_SECONDS_MIN) return newest;
  const oldest = page.tries.find((entry) => entry.counts.has(name));
  return Math.max(0, newest - (oldest ? oldest.counts.get(name) : newest));
}

function button(text, label, act) {
  return make("button", { type: "button", "aria-label": label, onclick: act }, text);
}

function cell(label, kind, ...children) {
  return make("td", { "data-label": label, class: kind }, ...children);
}

function newTargetRow(target, kind) {
  const row = { name: target.name, state: make("span", { class: "chip" }), why: cell("Why", "why"),
    fill: make("i"), mark: make("b"), share: make("span", { class: "quiet" }),
    flight: cell("In flight", "number"), good: cell("Good", "number"),
    ttft: cell("First token", "number") };
  const does = (verb, text) => button(text, `${text} ${target.name}`,
    () => changeTarget(verb, kind, target.name));
  row.eject = does("eject", "Eject");
  row.drain = does("drain", "Drain");
  row.restore = does("restore", "Restore");
  row.node = make("tr", {}, cell("State", "state", row.state),
    cell(kind === "provider" ? "Provider" : "Target", "name", target.name),
    row.why, cell("Share", "shares", make("div", { class: "share" },
      make("div", { class: "meter" }, row.fill, row.mark), row.share)),
    row.flight, row.good, row.ttft,
    make("td", { class: "do" }, row.eject, row.drain, row.restore));
  return row;
}

function newTable(kind) {
  const names = [["State", "state"], kind === "provider" ? ["Provider", "name"] : ["Target", "name"],
    ["Why, until", "why"],
    [kind === "provider" ? "Share of all tries" : "Share: as it fell / as weighed", "share"], ["In flight", "flight"], ["Good", "good"],
    ["First token", "ttft"], ["", "do"]];
  const right = { flight: true, good: true, ttft: true };
  const heads = names.map(([text, key]) =>
    make("th", { scope: "col", class: right[key] ? "number" : "" }, text));
  return make("table", { class: "targets" },
    make("colgroup", {}, ...names.map(([, key]) => make("col", { class: `c-${key}` }))),
    make("thead", {}, make("tr", {}, ...heads)), make("tbody"));
}

function whyText(target, provider) {
  const which = !target.fit ? target : provider && !provider.fit ? provider : null;
  if (!which) return target.queued ? `${count(target.queued)} wait for a place` : "";
  const until = which.out_for_ms === undefined ? "until restored"
    : `for ${rough(which.out_for_ms)}`;
  return `${words(which.why)}, ${which.state === "half_open" ? "one try is let through" : until}`;
}

function updateTarget(row, target, provider, share) {
  const [text, kind] = stateOf(target, provider);
  say(row.state, text);
  row.state.className = `chip ${kind}`;
  say(row.why, whyText(target, provider));
  row.fill.style.width = `${(share.real * 100).toFixed(1)}%`;
  row.mark.style.left = `calc(${(share.weighed * 100).toFixed(1)}% - 1px)`;
  row.mark.hidden = !share.weighed;
  const real = share.tries ? percent(share.real) : "–";
  say(row.share, share.weighed === null ? real
    : `${real} / ${Math.round(share.weighed * 100)}${GAP}%`);
  say(row.flight, count(target.in_flight));
  say(row.good, target.tries ? percent(target.good / target.tries) : "–");
  say(row.ttft, duration(target.first_token_ms));
  row.restore.hidden = target.fit && target.state === "closed";
  row.eject.hidden = row.drain.hidden = !target.fit;
}

// As weighed: among those of the best priority that can be had.
function sharesOf(targets, providers) {
  const fit = targets.filter((target) => target.fit && (providers[target.provider] || {}).fit);
  const best = Math.min(...fit.map((target) => target.priority));
  const level = fit.filter((target) => target.priority === best);
  const sum = level.reduce((total, target) => total + target.weight, 0);
  const tries = targets.map((target) => triesOf(target.name));
  const all = tries.reduce((total, number) => total + number, 0);
  return targets.map((target, index) => ({ tries: tries[index],
    real: all ? tries[index] / all : 0,
    weighed: level.includes(target) && sum ? target.weight / sum : 0 }));
}

// The providers, as one more group.
function providerShares(providers) {
  const tries = providers.map((provider) => triesOf(`provider ${provider.name}`));
  const all = tries.reduce((total, number) => total + number, 0);
  return tries.map((number) => ({ tries: number, real: all ? number / all : 0, weighed: null }));
}

function groupsOf(summary) {
  const providers = list(summary.providers);
  const groups = [{ key: "providers", title: "Providers", kind: "provider", targets: providers,
    shares: providerShares(providers) }];
  for (const [route, targets] of byRoute(list(summary.targets))) {
    groups.push({ key: `route ${route}`, title: `Route ${route}`, kind: "target", targets,
      shares: sharesOf(targets, providers) });
  }
  return groups;
}

function byRoute(targets) {
  const routes = new Map();
  for (const target of targets) {
    if (!routes.has(target.route)) routes.set(target.route, []);
    routes.get(target.route).push(target);
  }
  return routes;
}

function groupNode(group) {
  let shown = page.targets.get(group.key);
  if (!shown) {
    shown = { rows: new Map(), table: newTable(group.kind), title: make("h3", {}, group.title) };
    shown.node = make("div", {}, shown.title, shown.table);
    page.targets.set(group.key, shown);
    $("targets").append(shown.node);
  }
  return shown;
}

// Shows those of a group that the filter lets pass, as long as there is room for them.
function showGroup(group, providers, filter, room) {
  const shown = groupNode(group), wanted = new Set(), counts = { shown: 0, hidden: 0, out: 0 };
  group.targets.forEach((target, index) => {
    const provider = group.kind === "target" ? providers[target.provider] : null;
    const [text] = stateOf(target, provider);
    if (text !== "in") counts.out++;
    if (filter && !`${group.title} ${target.name} ${text}`.toLowerCase().includes(filter)) return;
    if (counts.shown >= room) { counts.hidden++; return; }
    counts.shown++;
    const key = `${index} ${target.name}`;
    let row = shown.rows.get(key);
    if (!row) {
      row = newTargetRow(target, group.kind);
      shown.rows.set(key, row);
      shown.table.tBodies[0].append(row.node);
    }
    wanted.add(key);
    updateTarget(row, target, provider, group.shares[index]);
  });
  for (const [key, row] of shown.rows) {
    if (!wanted.has(key)) { row.node.remove(); shown.rows.delete(key); }
  }
  shown.node.hidden = wanted.size === 0;
  return counts;
}

function showTargets(summary) {
  const filter = $("filter").value.trim().toLowerCase(), providers = list(summary.providers);
  const groups = groupsOf(summary), keys = new Set(groups.map((group) => group.key));
  let room = TARGETS_MAX, hidden = 0, out = 0;
  for (const group of groups) {
    const counts = showGroup(group, providers, filter, room);
    room -= counts.shown;
    hidden += counts.hidden;
    if (group.kind === "target") out += counts.out;
  }
  for (const [key, shown] of page.targets) {
    if (!keys.has(key)) { shown.node.remove(); page.targets.delete(key); }
  }
  say($("targets-count"), `${count(list(summary.targets).length)} in ` +
    `${count(groups.length - 1)} routes, ${out ? count(out) : "none"} out or on probation`);
  $("targets-more").hidden = hidden === 0;
  say($("targets-more"), `${count(hidden)} more: filter by name, route or state.`);
}

// ---- recent requests ---------------------------------------------------------------------------

const KINDS = { ok: "ok", rate_limited: "slow", overloaded: "slow", dns: "net", connect: "net",
  tls: "net", reset: "net", abandoned: "none", hedge_lost: "none", client_fault: "none",
  content_filter: "none", context_length: "none", model_not_found: "none" };

function kindOf(attempt) {
  const name = attempt.class || "";
  return KINDS[name] || (name.startsWith("timeout") ? "time" : "bad");
}

function endKind(record) {
  const status = record["http.response.status_code"] || 0;
  if (record.end === "complete" && status < 400) return "ok";
  if (record.end === "client_gone" || (status >= 400 && status < 500)) return "slow";
  return "bad";
}

function lengthOf(record) {
  const ends = list(record.attempts).map((attempt) => attempt.start_ms + (attempt.total_ms || 0));
  return Math.max(1, record.duration_ms || 0, ...ends);
}

function statusText(record) {
  const status = record["http.response.status_code"];
  if (record.end === "complete") return String(status || "–");
  return `${status || ""} ${words(record.end)}`.trim();
}

function attemptText(attempt) {
  return `${attempt.target}: ${attempt.class}${attempt.status ? ` (${attempt.status})` : ""}, ` +
    `from ${duration(attempt.start_ms)}, ${duration(attempt.total_ms)}`;
}

function draw(lane, record, scale) {
  const at = (ms) => `${Math.min(100, ms / scale * 100).toFixed(2)}%`;
  const nodes = [make("u")];
  nodes[0].style.width = at(lengthOf(record));
  for (const attempt of list(record.attempts)) {
    const block = make("i", { class: `k-${kindOf(attempt)}`, title: attemptText(attempt) });
    block.style.left = `min(${at(attempt.start_ms)}, calc(100% - 3px))`;
    block.style.width = at(attempt.total_ms || 0);
    nodes.push(block);
    if (attempt.class === "ok" && attempt.first_token_ms > 0) {
      const tick = make("b");
      tick.style.left = at(attempt.start_ms + attempt.first_token_ms);
      nodes.push(tick);
    }
  }
  lane.replaceChildren(...nodes);
}

function trailOf(record) {
  const facts = [["id", record.id], ["route", record.route], ["policy", record.policy],
    ["generation", record.generation], ["reason", words(record.reason)],
    ["policy fault", words(record.policy_fault)], ["served by", record.target],
    ["first token", record.first_token_ms === undefined ? undefined : duration(record.first_token_ms)],
    ["tokens in", record["gen_ai.usage.input_tokens"]],
    ["tokens out", record["gen_ai.usage.output_tokens"]]];
  const text = facts.filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => `${name}: ${value}`).join(" · ");
  const node = make("div", { class: "trail" }, make("p", { class: "quiet" }, text));
  const heads = ["Target", "Outcome", "Began", "Waited", "Connected", "Head", "First token", "Took"];
  const body = make("tbody");
  for (const attempt of list(record.attempts)) {
    const outcome = make("span", { class: "chip" }, `${words(attempt.class)}${attempt.status
      ? ` ${attempt.status}` : ""}`);
    const ms = (label, value) => cell(label, "", duration(value));
    body.append(make("tr", {}, cell("Target", "name", attempt.target), cell("Outcome", "", outcome),
      ms("Began", attempt.start_ms), ms("Waited", attempt.wait_ms),
      cell("Connected", "", attempt.reused ? "reused" : duration(attempt.connect_ms)),
      ms("Head", attempt.head_ms), ms("First token", attempt.first_token_ms),
      ms("Took", attempt.total_ms)));
  }
  if (list(record.attempts).length) {
    node.append(make("table", {}, make("thead", {}, make("tr", {},
      ...heads.map((text) => make("th", { scope: "col" }, text)))), body));
  } else {
    node.append(make("p", {}, "No target was tried."));
  }
  return node;
}

function newRow(record) {
  const model = record["gen_ai.request.model"] || record["url.path"] || "–";
  const who = record.target ? `${model} → ${record.target}` : model;
  const row = { record, lane: make("span", { class: "lane" }) };
  const summary = `${statusText(record)}, ${who}, ${duration(record.duration_ms)}; tries: ` +
    (list(record.attempts).map(attemptText).join("; ") || "none");
  const head = make("button", { type: "button", class: "row", "aria-expanded": "false",
    "aria-label": summary },
    make("span", { class: "quiet" }, clock(record.time)),
    make("span", { class: `chip ${endKind(record)}` }, statusText(record)),
    make("span", { class: "who", title: who }, who), row.lane,
    make("span", { class: "took" }, duration(record.duration_ms)));
  row.node = make("li", {}, head);
  head.addEventListener("click", () => {
    const open = head.getAttribute("aria-expanded") === "false";
    head.setAttribute("aria-expanded", String(open));
    if (open) row.node.append(trailOf(record));
    else row.node.lastChild.remove();
  });
  return row;
}

function isTrouble(record) {
  return endKind(record) !== "ok" || list(record.attempts).length > 1;
}

function takeRecords(summary) {
  const recent = summary.recent || {};
  if (recent.last < page.last) page.records = []; // another process answers
  page.last = recent.last || 0;
  page.records = list(recent.records).reverse().concat(page.records).slice(0, 500);
}

function showRecent() {
  if ($("hold").checked) return;
  const shown = page.records.filter((record) => !$("trouble").checked || isTrouble(record))
    .slice(0, ROWS_MAX);
  const rows = new Map(shown.map((record) => [record, page.rows.get(record) || newRow(record)]));
  const own = $("own-scale").checked, common = Math.max(1, ...shown.map(lengthOf));
  const nodes = [...rows.values()].map((row) => {
    draw(row.lane, row.record, own ? lengthOf(row.record) : common);
    return row.node;
  });
  place($("recent"), nodes);
  page.rows = rows;
  $("recent-none").hidden = page.records.length > 0;
  say($("scale"), !shown.length ? "" : own ? "Each lane is as long as its request took."
    : `Each lane is ${duration(common)} long.`);
}

// Moves nothing that is in place already, so that the focus stays where it is.
function place(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] || null);
  });
}

// ---- in flight ---------------------------------------------------------------------------------

async function showInFlight() {
  const answer = await ask("/admin/requests?limit=50");
  const silent = list(answer.silent_workers);
  say($("in-flight-note"), `${count(answer.in_flight)} in flight, the oldest first` +
    (silent.length ? `; no answer from worker ${silent.join(", ")}` : ""));
  const heads = ["Age", "Waits for", "Model", "Route", "Tried", "Id"];
  const body = make("tbody");
  for (const request of list(answer.requests)) {
    const tried = list(request.attempts).map((attempt) =>
      `${attempt.target} ${attempt.status || attempt.class}`).join(", ");
    body.append(make("tr", {}, cell("Age", "", duration(request.age_ms)),
      cell("Waits for", "", request.waits_for), cell("Model", "", request["gen_ai.request.model"] || ""),
      cell("Route", "", request.route || ""), cell("Tried", "why", tried),
      cell("Id", "why", request.id)));
  }
  const table = make("table", {}, make("thead", {}, make("tr", {},
    ...heads.map((text) => make("th", { scope: "col" }, text)))), body);
  $("in-flight-list").replaceChildren(list(answer.requests).length ? table : "");
}

$("in-flight").addEventListener("toggle", () => { if ($("in-flight").open) poll(); });

// ---- generation --------------------------------------------------------------------------------

function showGeneration(summary) {
  const now = summary.generation, reloads = summary.reloads, canary = summary.canary;
  const pairs = [
    ["In force", `${now.number}, by ${now.by}, since ${new Date(now.since_wall_ms).toLocaleString("en-GB")}`],
    ["Files", now.digest],
    ["Reloads", `${count(reloads.good)} good, ${count(reloads.failed)} failed, ` +
      `${count(reloads.rolled_back)} rolled back`],
  ];
  if (now.reason) pairs.splice(1, 0, ["Because", now.reason]);
  if (canary) {
    pairs.push(["Canary", `${canary.number}, ${percent(canary.share_ratio)} of the requests, for ` +
      `${duration(canary.left_ms)} more: ${canary.standing}`]);
  }
  if (reloads.last_failed) {
    pairs.push(["Last failed", new Date(reloads.last_failed_wall_ms).toLocaleString("en-GB")]);
  }
  const nodes = pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  if ($("generation").textContent !== nodes.map((node) => node.textContent).join("")) {
    $("generation").replaceChildren(...nodes);
  }
  $("reload-problem").hidden = !reloads.last_failed;
  say($("reload-problem"), reloads.last_failed || "");
  $("promote").hidden = !canary;
  $("rollback").hidden = !canary && !now.can_go_back;
}

function show(summary) {
  page.summary = summary;
  noteTries(summary);
  takeRecords(summary);
  showNow(summary);
  showTargets(summary);
  showRecent();
  showGeneration(summary);
  document.body.dataset.polls = Number(document.body.dataset.polls || 0) + 1;
}

for (const id of ["trouble", "own-scale", "hold"]) $(id).addEventListener("change", showRecent);
$("filter").addEventListener("input", () => { if (page.summary) showTargets(page.summary); });

// ---- what operators do -------------------------------------------------------------------------

function confirmed(title, text, yes, withDuration) {
  say($("ask-title"), title);
  say($("ask-text"), text);
  say($("ask-yes"), yes);
  $("ask-for-label").hidden = !withDuration;
  $("ask").returnValue = "no";
  $("ask").showModal();
  return new Promise((resolve) => {
    $("ask").addEventListener("close", () => resolve($("ask").returnValue === "yes"), { once: true });
  });
}

async function act(path, done) {
  if (page.acting) return;
  page.acting = true;
  notice("");
  try {
    const answer = await ask(path, { method: "POST" });
    notice(typeof done === "function" ? done(answer) : done);
  } catch (problem) {
    if (problem.token) login();
    else notice(problem.message, true);
  }
  page.acting = false;
  poll();
}

async function changeTarget(verb, kind, name) {
  const texts = {
    eject: ["Eject", "gets no requests for a while. Those in flight go on."],
    drain: ["Drain", "gets no new requests until it is restored. Those in flight go on."],
    restore: ["Restore", "gets requests again at once."],
  };
  const [title, text] = texts[verb];
  if (!await confirmed(`${title} ${name}?`, `${name} ${text}`, title, verb === "eject")) return;
  const lasts = verb === "eject" ? $("ask-for").value : "";
  const query = `${kind}=${encodeURIComponent(name)}${lasts ? `&for=${lasts}` : ""}`;
  act(`/admin/targets/${verb}?${query}`, `${title}: ${name} done.`);
}

$("reload").addEventListener("click", async () => {
  if (!await confirmed("Reload?", "The policies directory is read again. What does not load " +
    "changes nothing; requests in flight end on what they began with.", "Reload")) return;
  act("/admin/reload", (answer) => `Generation ${answer.generation} is in force ` +
    `(${count(answer.change_count)} changes)` + (list(answer.needs_restart).length
    ? `; a restart is needed for ${answer.needs_restart.join(", ")}.` : "."));
});

$("rollback").addEventListener("click", async () => {
  const canary = page.summary && page.summary.canary;
  if (!await confirmed("Roll back?", canary ? "The canary is taken back."
    : "The generation before this one is put in force again.", "Roll back")) return;
  act("/admin/rollback", "Rolled back.");
});

$("promote").addEventListener("click", async () => {
  if (await confirmed("Promote the canary?", "All requests begin on it from now on.", "Promote")) {
    act("/admin/promote", "The canary is in force.");
  }
});

$("drain").addEventListener("click", async () => {
  if (await confirmed("Drain the gateway?", "It takes no new connections, finishes what is in " +
    "flight, and ends. This cannot be undone.", "Drain")) {
    act("/admin/drain", "Draining: the gateway ends when the last request has.");
  }
});

// ---- explain -----------------------------------------------------------------------------------

function explained(answer) {
  if (!answer.route) {
    return [make("p", {}, `Refused: ${words(answer.refused)}.`),
      make("ul", {}, ...list(answer.routes).map((route) =>
        make("li", {}, `${route.name}: ${route.why}`)))];
  }
  const rows = list(answer.candidates).map((item) => make("tr", {}, cell("Order", "", `${item.order}.`),
    cell("Target", "name", item.target), cell("Priority", "", String(item.priority)),
    cell("Weight", "", String(item.weight)),
    cell("Share", "", item.share_ratio === undefined ? "–" : percent(item.share_ratio)),
    cell("After", "", duration(item.after_ms)), cell("Why", "why", words(item.in_spite_of))));
  const left = list(answer.left_out).map((item) => make("tr", {}, cell("Order", "", "–"),
    cell("Target", "name", item.target), cell("Priority", "", String(item.priority)),
    cell("Weight", "", String(item.weight)), cell("Share", "", ""), cell("After", "", ""),
    cell("Why", "why", words(item.why) + (item.out_for_ms ? `, for ${duration(item.out_for_ms)}` : ""))));
  const heads = ["Order", "Target", "Priority", "Weight", "Share", "After", "Why left out"];
  const first = answer.first;
  return [
    make("p", {}, `Route ${answer.route.name}, policy ${answer.route.policy}, deadline ` +
      `${duration(answer.route.deadline_ms)}, at most ${answer.route.retry.attempts} tries; ends: ` +
      `${words(answer.ends)}.`),
    make("table", {}, make("thead", {}, make("tr", {},
      ...heads.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, ...rows, ...left)),
    first ? make("p", { class: "quiet" }, `First: ${first.method} ${first.url}`) : undefined,
  ].filter(Boolean);
}

$("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ path: $("explain-path").value,
    body: { model: $("explain-model").value, messages: [] } });
  try {
    $("explain-answer").replaceChildren(
      ...explained(await ask("/admin/explain", { method: "POST", body })));
  } catch (problem) {
    if (problem.token) login();
    else $("explain-answer").replaceChildren(make("p", { role: "alert" }, problem.message));
  }
});

poll();
