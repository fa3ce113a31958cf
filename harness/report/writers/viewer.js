"use strict";
// Texts of data sets and models are only ever set as text: this program makes no markup from strings.
const facts = JSON.parse(document.getElementById("facts").textContent);
const form = document.getElementById("filters"), list = document.getElementById("list"), pane = document.getElementById("question");
const counts = document.getElementById("counts");
const AT_ONCE = 400;  // questions listed before a click asks for more
const FIELDS = ["column", "seed", "a", "am", "b", "bm", "show", "kind", "q"];

// --- data: files beside the page, each loaded once ------------------------------------------------------------------
const arrived = new Map(), waiting = new Map();
function deliver(name, value) { arrived.set(name, value); }
function load(name) {
  if (!waiting.has(name)) {
    waiting.set(name, new Promise((found, failed) => {
      const script = document.createElement("script");
      script.src = `${encodeURIComponent(facts.data)}/${encodeURIComponent(name)}.js`;
      script.onload = () => arrived.has(name) ? found(arrived.get(name)) : failed(new Error(`${name}.js holds something else`));
      script.onerror = () => failed(new Error(`${facts.data}/${name}.js cannot be read; it belongs beside this page`));
      document.head.append(script);
    }));
  }
  return waiting.get(name);
}

// --- state: what the address says --------------------------------------------------------------------------------------
const latentsOf = name => name === "own" ? "its own latents" : `latents ${name}`;
const initial = {
  column: facts.columns[0].name, seed: "", a: facts.rows[facts.rows.length - 1], am: "own", b: facts.rows[0], bm: "own",
  show: "all", kind: "", q: "", n: "",
};
let state, view = [], data = null, shownUpTo = AT_ONCE, ticket = 0;
function read() {
  const found = {...initial};
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (name in found) found[name] = value;
  if (!facts.columns.some(one => one.name === found.column)) found.column = initial.column;
  for (const row of ["a", "b"]) if (!facts.rows.includes(found[row])) found[row] = initial[row];
  for (const mode of ["am", "bm"]) if (!facts.latents.includes(found[mode])) found[mode] = "own";
  return found;
}
function address(next) {
  const said = Object.entries(next).filter(([name, value]) => value !== initial[name]);
  return `#${new URLSearchParams(said)}`;
}
function go(change, keep) {
  const next = address({...state, ...change});
  if (next === location.hash || next === "#" && !location.hash) return;
  if (keep) { history.replaceState(null, "", next); render(); } else location.hash = next;
}

// --- small helpers -------------------------------------------------------------------------------------------------------
function make(tag, {text, ...properties} = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}
function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([name, text]) => make("option", {value: name, text})));
  select.value = value;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}
function runOf(row, latents, seed) {
  const mine = data.runs.filter(run => run.row === row && run.latents === latents);
  return mine.find(run => String(run.seed) === seed) ?? mine[0];
}
const mark = (run, at) => make("span", {className: run.right[at] === "1" ? "right" : "wrong", text: data.said[run.said[at]]});

// --- filters ---------------------------------------------------------------------------------------------------------------
const SHOWN = {
  all: () => true, flips: (a, b) => a !== b, lost: (a, b) => a && !b, gained: (a, b) => !a && b, right: a => a, wrong: a => !a,
  "both-right": (a, b) => a && b, "both-wrong": (a, b) => !a && !b,
};
function chosen(a, b) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean), kind = state.kind === "" ? -1 : Number(state.kind);
  const found = [];
  const tally = {all: 0, "both-right": 0, lost: 0, gained: 0, "both-wrong": 0};
  const unreadable = data.said.indexOf("no readable option");
  data.questions.forEach((question, at) => {
    if (kind >= 0 && !question.kinds.includes(kind)) return;
    question.searched ??= [question.id, question.text, ...question.options].join("\n").toLowerCase();
    if (!words.every(word => question.searched.includes(word))) return;
    const right = a?.right[at] === "1", other = b?.right[at] === "1";
    tally.all += 1;
    if (a && b) tally[right ? (other ? "both-right" : "lost") : other ? "gained" : "both-wrong"] += 1;
    const fits = state.show === "other-answer" ? a && b && a.said[at] !== b.said[at]
      : state.show === "unreadable" ? a && a.said[at] === unreadable
      : (a && b || state.show === "all" || a && SHOWN[state.show]?.length === 1) && (SHOWN[state.show] ?? SHOWN.all)(right, other);
    if (fits) found.push(at);
  });
  return [found, tally];
}
function fill() {
  options(form.column, facts.columns.map(one => [one.name, one.title]), state.column);
  const seeds = [...new Set(data.runs.map(run => run.seed))].sort((x, y) => x - y).map(String);
  options(form.seed, seeds.map(seed => [seed, seed]), state.seed || seeds[0]);
  for (const [row, mode] of [["a", "am"], ["b", "bm"]]) {
    const has = name => data.runs.some(run => run.row === name);
    options(form[row], facts.rows.map(name => [name, has(name) ? name : `${name} (not run)`]), state[row]);
    const modes = facts.latents.filter(name => name === "own" || data.runs.some(run => run.row === state[row] && run.latents === name));
    options(form[mode], modes.map(name => [name, latentsOf(name)]), state[mode]);
    form[mode].hidden = modes.length < 2;
  }
  form.show.value = state.show;
  const kinds = data.kinds.map(([property, value], place) => [String(place), `${property}: ${value}`]);
  options(form.kind, [["", "all"], ...kinds], state.kind);
  form.kind.closest("label").hidden = kinds.length === 0;
  if (document.activeElement !== form.q) form.q.value = state.q;
}
function count(tally, total) {
  const parts = [`${view.length.toLocaleString("en")} of ${data.questions.length.toLocaleString("en")} questions`];
  const {shown, asked} = facts.columns.find(one => one.name === state.column);
  if (shown < asked) parts[0] += ` (of ${asked.toLocaleString("en")} asked, spread evenly)`;
  counts.replaceChildren(parts[0] + ". ");
  const names = [["both-right", "both right"], ["lost", "only the first right"], ["gained", "only the second right"], ["both-wrong", "both wrong"]];
  for (const [show, text] of names) {
    const button = make("button", {type: "button", text: `${text} ${tally[show]}`});
    button.addEventListener("click", () => go({show, n: ""}));
    counts.append(button, " ");
  }
  if (data.missing.length) counts.append(` Not run: ${data.missing.slice(0, 3).join("; ")}${data.missing.length > 3 ? ` and ${data.missing.length - 3} more` : ""}.`);
}

// --- the list and the question ---------------------------------------------------------------------------------------------
function item(at, a, b) {
  const question = data.questions[at];
  const link = make("a", {href: address({...state, n: String(at)})}, make("span", {className: "start", text: question.text || question.id}));
  const answers = make("small", {}, make("span", {text: question.id}));
  for (const run of [a, b]) if (run) answers.append(mark(run, at));
  link.append(answers);
  if (at === current()) link.setAttribute("aria-current", "true");
  link.dataset.at = at;
  return make("li", {}, link);
}
function drawList(a, b) {
  list.replaceChildren(...view.slice(0, shownUpTo).map(at => item(at, a, b)));
  if (view.length > shownUpTo) {
    const more = make("button", {type: "button", className: "more", text: `${(view.length - shownUpTo).toLocaleString("en")} more`});
    more.addEventListener("click", () => { shownUpTo += 4 * AT_ONCE; drawList(a, b); });
    list.append(make("li", {}, more));
  }
  if (!view.length) list.append(make("li", {text: "No question fits these filters."}));
  reveal();
}
function reveal() {  // moves the list alone, never the page
  const current = list.querySelector("[aria-current]");
  if (!current) return;
  const box = list.getBoundingClientRect(), at = current.getBoundingClientRect();
  if (at.top < box.top) list.scrollTop += at.top - box.top;
  else if (at.bottom > box.bottom) list.scrollTop += at.bottom - box.bottom;
}
const current = () => state.n === "" ? view[0] ?? -1 : Number(state.n);
function picture([file, width, height, boxes, below], number, all) {
  const image = make("img", {alt: below ? `the clip at ${below}` : `picture ${number + 1} of ${all.length}`, loading: "lazy"});
  Object.assign(image.style, {width: `${Math.max(width, Math.min(2 * width, 256))}px`, aspectRatio: `${width} / ${height}`});
  image.src = `${encodeURIComponent(facts.data)}/${file}`;
  const frame = make("div", {className: "picture"}, image);
  for (const [left, top, wide, high] of boxes) {
    const box = make("i", {title: "evidence, which the models never saw"});
    Object.assign(box.style, {left: `${left}%`, top: `${top}%`, width: `${wide}%`, height: `${high}%`});
    frame.append(box);
  }
  return all.length < 2 && !below ? frame : make("figure", {className: "picture"}, ...frame.childNodes, make("figcaption", {text: below || `${number + 1}`}));
}
function answerCard(letter, run, at, part) {
  const card = make("section", {className: "answer"}, make("h3", {text: `${letter} · ${run.row}, ${latentsOf(run.latents)}, seed ${run.seed}`}), mark(run, at));
  const [text, steps, cut, loglik] = part.answers[data.runs.indexOf(run)][at % data.part];
  const known = [`${steps} latent steps`, cut ? "cut off" : "", loglik === null ? "" : `log-likelihood of the right letter ${loglik}`];
  card.append(" ", make("small", {text: known.filter(Boolean).join(" · ")}), make("pre", {text: part.texts[text] || "(nothing)", dir: "auto"}));
  return card;
}
function everyAnswer(at) {
  const modes = facts.latents.filter(name => data.runs.some(run => run.latents === name));
  const head = make("tr", {}, ...["Row", ...modes.map(latentsOf)].map(text => make("th", {scope: "col", text})));
  const body = make("tbody");
  for (const row of facts.rows) {
    const line = make("tr", {}, make("th", {scope: "row", text: row}));
    for (const mode of modes) {
      const runs = data.runs.filter(run => run.row === row && run.latents === mode);
      const cell = make("td", {title: runs.length ? `make this the first row: ${row}, ${latentsOf(mode)}` : "not run"}, ...runs.map(run => mark(run, at)));
      if (runs.length) cell.addEventListener("click", () => go({a: row, am: mode}));
      line.append(cell);
    }
    body.append(line);
  }
  return make("div", {className: "scroll"}, make("table", {className: "all"}, make("caption", {text: "Every row's answer, seed by seed."}), make("thead", {}, head), body));
}
async function drawQuestion(a, b) {
  const at = current(), mine = ++ticket;
  const question = data.questions[at];
  if (!question) { pane.replaceChildren(); return; }
  const place = view.indexOf(at);
  const step = (by, text) => {
    const button = make("button", {type: "button", text, disabled: following(by) === undefined});
    button.addEventListener("click", () => move(by));
    return button;
  };
  const said = [question.id, ...question.kinds.map(kind => data.kinds[kind].join(" "))].join(" · ");
  const where = place < 0 ? "not among these" : `${place + 1} of ${view.length}`;
  const choices = make("ol", {className: "options"}, ...question.options.map((text, number) => {
    const target = question.target === String.fromCharCode(65 + number);
    return make("li", {className: target ? "target" : ""}, make("bdi", {text}), target ? " (the answer)" : "");
  }));
  const lettered = question.options.length > 0;
  const answers = make("div", {className: "answers", text: "…"});
  pane.replaceChildren(
    make("h2", {}, step(-1, "‹ previous"), step(1, "next ›"), make("span", {text: where}), make("small", {text: said})),
    make("div", {className: "pictures"}, ...question.pictures.map(picture)),
    question.lost ? make("p", {text: `Not shown: ${question.lost}`}) : "",
    make("p", {className: "asked", text: question.text, dir: "auto"}),
    lettered ? choices : make("p", {text: `The answer: ${question.target}`, dir: "auto"}), answers, everyAnswer(at),
  );
  const part = await load(`${state.column}-${Math.floor(at / data.part)}`);
  if (mine !== ticket) return;  // another question was chosen meanwhile
  const cards = [["First", a], ["Second", b === a ? undefined : b]].filter(([, run]) => run);
  answers.replaceChildren(...cards.map(([letter, run]) => answerCard(letter, run, at, part)));
}

// --- what moves --------------------------------------------------------------------------------------------------------------
async function render() {
  const before = state;
  state = read();
  const mine = ++ticket;
  try {
    const loaded = await load(state.column);
    if (mine !== ticket) return;
    data = loaded;
    fill();
    const a = runOf(state.a, state.am, form.seed.value), b = runOf(state.b, state.bm, form.seed.value);
    const [found, tally] = chosen(a, b);
    const same = before && FIELDS.every(name => before[name] === state[name]);
    view = found;
    if (!same) shownUpTo = AT_ONCE;
    const place = view.indexOf(current());
    if (place >= shownUpTo) shownUpTo = place + AT_ONCE;
    count(tally);
    const link = list.querySelector(`a[data-at="${current()}"]`);
    if (same && link) {
      list.querySelector("[aria-current]")?.removeAttribute("aria-current");
      link.setAttribute("aria-current", "true");
      reveal();
    } else drawList(a, b);
    await drawQuestion(a, b);
  } catch (error) {
    pane.replaceChildren(make("p", {className: "banner", text: error.message}));
  }
  document.documentElement.dataset.ready = location.hash;
}
function following(by) {  // of a question that the filters leave out: the nearest one that they leave in
  const at = current(), place = view.indexOf(at);
  return place >= 0 ? view[place + by] : by > 0 ? view.find(one => one > at) : view.findLast(one => one < at);
}
function move(by) {
  const next = following(by);
  if (next !== undefined) go({n: String(next)}, true);
}
form.addEventListener("input", event => {
  const {name, value} = event.target;
  const cleared = name === "column" ? {kind: "", n: ""} : {};
  go({...cleared, [name]: value === initial[name] ? initial[name] : value}, name === "q");
});
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", event => { event.preventDefault(); location.hash = address({...initial, n: state.n, column: state.column}); });
addEventListener("hashchange", render);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input, select");
  if (event.key === "Escape") field?.blur();
  if (field) return;
  if (event.key === "j" || event.key === "ArrowRight") move(1);
  else if (event.key === "k" || event.key === "ArrowLeft") move(-1);
  else if (event.key === "e") pane.classList.toggle("without-boxes");
  else if (event.key === "/") { event.preventDefault(); form.q.focus(); }
});
render();
