// Shows what /events sends. Everything in it is text that others wrote: it reaches the page as textContent only.
"use strict";

const STALE = 5000; // milliseconds without an event: the manager sends one every 2 s
const AGAIN = 2000; // milliseconds until a connection that was refused is tried again
const CELLS = 6000; // cells of the matrix that are rendered at first, and more with each press of the button
const ROWS = 200;

const $ = (id) => document.getElementById(id);
const state = { page: null, at: null, lost: false, source: null, shown: 1, drawing: false, rows: new Map(), columns: "" };

// --- elements

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function header(text, scope) {
  const made = element("th", text);
  made.scope = scope;
  return made;
}

function cell(...parts) {
  const made = element("td");
  made.append(...parts);
  return made;
}

function chip(text, kind) {
  return element("span", text, kind ? `chip ${kind}` : "chip");
}

// Keeps the children that are there already: a screen reader reads what is new, and the focus stays where it is.
function keep(parent, items, key, make) {
  const old = new Map();
  for (const child of [...parent.children]) old.set(child.dataset.key, child);
  const wanted = items.map((item) => {
    const name = key(item);
    const found = old.get(name) || make(item);
    old.delete(name);
    found.dataset.key = name;
    return found;
  });
  for (const gone of old.values()) gone.remove();
  wanted.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] || null);
  });
}

// --- parts of the page

function drawProblems(page) {
  const problems = page.problems;
  keep($("problems"), problems, (p) => JSON.stringify([p.level, p.subject, p.text]), (p) => {
    const item = element("li", undefined, p.level);
    item.append(element("strong", `${p.level === "error" ? "Error" : "Warning"}: ${p.subject}. `), p.text);
    return item;
  });
  $("problems-none").hidden = problems.length > 0;
  $("problems-none").textContent = page.waitingFor || "No problems.";
  $("problems-more").hidden = !page.problemsLeftOut;
  $("problems-more").textContent = `And ${page.problemsLeftOut} more.`;
}

function drawCounts(counts) {
  const shown = [
    ["Services", counts.services],
    ["Addresses served", `${counts.vips - counts.notServed} of ${counts.vips}`],
    ["Nodes alive", `${counts.nodes - counts.dead} of ${counts.nodes}`],
    ["Replicas heard", `${counts.live} of ${counts.replicas}`],
    ["Sessions established", `${counts.established} of ${counts.sessions}`],
  ];
  keep($("counts"), shown, (row) => row.join(), ([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  });
}

function nodeHeader(name, node) {
  const made = header(name, "col");
  if (node.dead) made.append(" ", chip("dead", "dead"));
  return made;
}

function marks(vip, name, node) {
  const hop = vip.nextHops.indexOf(name) + 1;
  const serves = vip.servedOn.includes(name);
  const found = [];
  if (node.dead && (hop || serves)) found.push(chip("dead", "dead"));
  if (serves) found.push(chip("serves", "serves"));
  if (vip.announced.includes(name)) found.push(chip("announced", "told"));
  if (vip.answerer === name) found.push(chip("answers", "answers"));
  if (hop) found.push(chip(`hop ${hop}`));
  return found;
}

function vipRow(vip, nodes) {
  const row = element("tr", undefined, vip.wrong ? "wrong" : "");
  const mode = cell(vip.served === "none" ? chip("not served", "bad") : vip.served);
  if (vip.served !== "none" && vip.served !== vip.mode) mode.append(` (planned: ${vip.mode})`);
  for (const text of vip.problems) mode.append(element("div", text, "why"));
  row.append(header(vip.address, "row"), cell(vip.services.join(", ")), cell(vip.eip), mode);
  for (const [name, node] of nodes) row.append(cell(...marks(vip, name, node).flatMap((mark) => [mark, " "])));
  row.append(cell(vip.since || "-"));
  return row;
}

function drawVips(page) {
  const nodes = Object.entries(page.nodes);
  const columns = JSON.stringify(nodes.map(([name, node]) => [name, node.dead]));
  if (columns !== state.columns) {
    const line = element("tr");
    line.append(...["Address", "Service", "Pool", "Mode"].map((name) => header(name, "col")));
    line.append(...nodes.map(([name, node]) => nodeHeader(name, node)), header("Since", "col"));
    $("vips").tHead.replaceChildren(line);
    state.columns = columns;
    state.rows.clear();
  }
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = page.vips.filter((vip) => (vip.wrong || !$("wrong").checked) && words.every((w) => vip.words.includes(w)));
  const room = state.shown * Math.max(20, Math.min(ROWS, Math.floor(CELLS / (nodes.length + 1))));
  const rows = new Map();
  for (const vip of found.slice(0, room)) {
    const old = state.rows.get(vip.address);
    rows.set(vip.address, old && old.text === vip.text ? old : { text: vip.text, row: vipRow(vip, nodes) });
  }
  state.rows = rows;
  $("vips").tBodies[0].replaceChildren(...[...rows.values()].map((each) => each.row));
  const left = page.vipsLeftOut ? ` ${page.vipsLeftOut} more addresses without a problem are not on this page.` : "";
  $("vips-shown").textContent = `${rows.size} of ${found.length} matching addresses are shown.${left}`;
  $("more").hidden = rows.size === found.length;
}

function drawSessions(page) {
  const replicas = Object.entries(page.nodes).filter(([, node]) => node.replica);
  const line = element("tr");
  line.append(header("Peer", "col"), ...replicas.map(([name]) => header(name, "col")));
  $("sessions").tHead.replaceChildren(line);
  const rows = Object.entries(page.peers).map(([peer, sessions]) => {
    const row = element("tr");
    row.append(header(peer, "row"));
    for (const [name, node] of replicas) {
      const session = sessions[name];
      if (node.replica === "silent") row.append(cell(chip("silent", "bad")));
      else if (!session) row.append(cell("-"));
      else if (session.established) row.append(cell(chip("established", "good")));
      else row.append(cell(chip("down", "bad"), element("div", session.why, "why")));
    }
    return row;
  });
  $("sessions").tBodies[0].replaceChildren(...rows);
}

function drawNodes(page) {
  const line = element("tr");
  line.append(...["Node", "Answers probes", "Ready", "Next hop", "Replica"].map((name) => header(name, "col")));
  $("nodes").tHead.replaceChildren(line);
  const rows = Object.entries(page.nodes).map(([name, node]) => {
    const row = element("tr", undefined, node.dead ? "wrong" : "");
    const by = node.deadBy.length ? ` found by ${node.deadBy.join(", ")}` : "";
    const use = [node.usable ? "usable" : `not usable: ${node.why || "no reason is known"}`];
    if (node.cordoned) use.push("cordoned");
    if (node.drain) use.push(`drained: ${node.drain}`);
    row.append(
      header(name, "row"),
      node.dead ? cell(chip("dead", "dead"), by) : cell("yes"),
      cell(node.ready || "-"),
      cell(use.join(", ")),
      node.replica === "silent" ? cell(chip("silent", "bad")) : cell(node.replica || "none"),
    );
    return row;
  });
  $("nodes").tBodies[0].replaceChildren(...rows);
}

function drawHistory(page) {
  const shown = page.history.filter((entry) => entry.move || !$("moves").checked);
  const seen = new Map(); // entries may be alike
  keep($("history"), shown, (entry) => {
    const text = JSON.stringify([entry.time, entry.what, entry.message]);
    seen.set(text, (seen.get(text) || 0) + 1);
    return `${seen.get(text)} ${text}`;
  }, (entry) => {
    const item = element("li");
    const time = element("time", entry.time);
    time.dateTime = entry.time;
    item.append(time, element("span", entry.message, entry.bad ? "bad" : ""));
    return item;
  });
  $("history-none").hidden = shown.length > 0;
}

// --- the whole

function draw() {
  state.drawing = false;
  const page = state.page;
  if (!page) return;
  drawProblems(page);
  for (const part of document.querySelectorAll("main > section:not(:first-child)")) part.hidden = Boolean(page.waitingFor);
  if (page.waitingFor) return;
  $("source").textContent =
    `As the replica on ${page.node} knows it. Leader: ${page.leader || "none"}. Release ${page.release || "unknown"}.`;
  drawCounts(page.counts);
  drawVips(page);
  drawSessions(page);
  drawNodes(page);
  drawHistory(page);
}

function later() {
  if (!state.drawing) {
    state.drawing = true;
    requestAnimationFrame(draw);
  }
}

function heard() {
  state.at = performance.now();
  state.lost = false;
  tellAge();
}

function tellAge() {
  const age = state.at === null ? 0 : performance.now() - state.at;
  const stale = state.lost || age > STALE;
  let text = state.at === null ? "Connecting." : "Live.";
  if (stale) text = state.at === null ? "No connection to the replica." : "Connection lost.";
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").className = stale ? "lost" : "";
  // Not part of the live region: a screen reader would read each second.
  $("age").textContent = stale && state.at !== null ? `Data is ${Math.round(age / 1000)} s old.` : "";
  document.body.className = stale ? "stale" : "";
}

function take(text) {
  const page = JSON.parse(text);
  page.problems = page.problems || [];
  for (const vip of page.vips || []) {
    vip.text = JSON.stringify(vip);
    vip.words = [vip.address, vip.eip, vip.served, ...vip.services, ...vip.nextHops].join(" ").toLowerCase();
  }
  state.page = page;
  const errors = page.problems.filter((problem) => problem.level === "error").length;
  document.title = errors ? `(${errors}) PorterLB` : "PorterLB";
}

function connect() {
  const source = new EventSource("events");
  source.addEventListener("page", (event) => {
    take(event.data);
    heard();
    later();
  });
  source.addEventListener("beat", heard);
  source.addEventListener("error", () => {
    state.lost = true;
    tellAge();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN);
  });
}

$("filter").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["text", "wrong", "moves"]) {
  $(name).addEventListener("input", () => {
    state.shown = 1;
    later();
  });
}
$("more").addEventListener("click", () => {
  state.shown += 1;
  later();
});
setInterval(tellAge, 500);
connect();
