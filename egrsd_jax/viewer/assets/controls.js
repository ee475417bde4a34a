// Buttons, keys and what they do; the last file, which sets the page going.
"use strict";

const button = (parent, key, action, ...label) => {
  const made = make("button", { type: "button" }, ...label);
  made.key = key;
  made.addEventListener("click", action);
  parent.append(made);
  return made;
};

MEASURES.forEach((each, index) => {
  const made = button(element("measures"), each.key, () => setMeasure(each), make("kbd", {}, index + 1), ...symbolOf(each));
  const present = each.key in INDEX.scales;
  made.disabled = !present;
  made.title = present ? each.name : `${each.name}: missing in this file`;
});

for (const outcome of Object.keys(OUTCOMES)) {
  const count = INDEX.rows.filter(OUTCOMES[outcome]).length.toLocaleString("en");
  button(element("outcome"), outcome, () => { chosen.outcome = outcome; arrange(); }, `${outcome} ${count}`);
}

for (const [key, [name]] of Object.entries(ORDERS)) element("sort").append(make("option", { value: key }, name));
element("sort").addEventListener("change", ({ target }) => { chosen.sort = target.value; arrange(); });
let waiting;
element("search").addEventListener("input", ({ target }) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { chosen.words = target.value.trim(); arrange(); }, 120);
});

if (INDEX.has.regime) {
  button(element("regimes"), "regimes", () => setUnderlined(!list.classList.contains("underlined")), "regimes");
  for (const [name, meaning] of Object.entries(REGIMES)) {
    element("regimes").append(make("span", { title: meaning }, make("span", { class: name }, name), make("span", { class: "meaning quiet" }, ` ${meaning}`)));
  }
} else element("regimes").append(make("span", { class: "quiet" }, "regimes: missing in this file"));

const switchTheme = () => {
  const root = document.documentElement;
  const dark = (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.style.colorScheme = dark ? "light" : "dark";
};
element("theme").addEventListener("click", switchTheme);

const KEYS = {
  "← →": ["token before, token after"],
  "↑ ↓": ["token over, token under"],
  "j k": ["next completion, completion before"],
  "Home End": ["first and last token of a completion"],
  "1 … 6": ["colour by ", ...MEASURES.flatMap((each, index) => [index ? ", " : "", ...symbolOf(each)])],
  "f": ["all, right or wrong completions"],
  "/": ["search"],
  "r": ["regimes underlined or not"],
  "t": ["dark or light"],
  "Esc": ["close what is open"],
};
const SYMBOLS = {
  "H": "entropy of the teacher's distribution, in nats",
  "δ": "log p of the teacher − log p of the student, in nats",
  "w": "exp(± δ), the sign that of the advantage, clipped: how far the teacher agrees with the update",
  "ω": "the gate: 1 where the teacher is sure, less where it is not",
  "CL": "with causal lookahead: of the least entropy of the next few tokens",
  "A": "advantage of the completion; A·w·ω is what multiplies the gradient of a token",
};
const NAMES = {
  reference_answer: "reference answers", reward: "rewards", regime: "regimes", student_entropy: "student entropy",
  teacher_top: "likeliest tokens of the teacher", student_top: "likeliest tokens of the student",
};
for (const { key, name } of MEASURES) NAMES[key] ??= name;
const lacking = Object.keys(NAMES).filter((key) => !(INDEX.has[key] ?? key in INDEX.scales)).map((key) => NAMES[key]);
const definitions = (entries) => make("dl", {}, ...Object.entries(entries).flatMap(
  ([term, meaning]) => [make("dt", {}, term), make("dd", {}, ...[meaning].flat())]));
const closeHelp = make("button", { type: "button" }, "close");
closeHelp.addEventListener("click", () => element("help").close());
element("help").append(
  make("h2", {}, "Keys"), definitions(KEYS),
  make("h2", {}, "Symbols"), definitions(SYMBOLS),
  make("p", {}, lacking.length ? `Missing in this file: ${lacking.join(", ")}.` : ""), closeHelp,
);
element("ask").addEventListener("click", () => element("help").showModal());

const nextOutcome = () => {
  const names = Object.keys(OUTCOMES);
  chosen.outcome = names[(names.indexOf(chosen.outcome) + 1) % names.length];
  arrange();
};
const ACTIONS = {
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  ArrowDown: () => stepLine(1),
  ArrowUp: () => stepLine(-1),
  j: () => stepCompletion(1),
  k: () => stepCompletion(-1),
  Home: () => focused && goTo(focused[0], 0),
  End: () => focused && goTo(focused[0], Infinity),
  f: nextOutcome,
  "/": () => element("search").focus(),
  r: () => setUnderlined(!list.classList.contains("underlined")),
  t: switchTheme,
  "?": () => element("help").showModal(),
  Escape: () => panel.classList.remove("open"),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  const typing = event.target.matches("input") || (event.target.matches("select") && !/[/?\d]/.test(event.key));
  if (typing) return void (event.key === "Escape" && event.target.blur());
  const wanted = MEASURES[event.key - 1];
  const action = wanted ? () => setMeasure(wanted) : ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const tokenAt = (event) => event.target.closest?.(".token");
list.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse" && tokenAt(event)) show(tokenAt(event).place); });
list.addEventListener("pointerleave", () => focused && show(focused));
list.addEventListener("click", (event) => tokenAt(event)?.focus());
list.addEventListener("focusin", (event) => { if (tokenAt(event)) onFocus(tokenAt(event)); });

// What the colouring's bar covers, nothing else may be under.
new ResizeObserver(([{ target }]) => document.body.style.setProperty("--bar", `${target.offsetHeight}px`)).observe(element("scale"));

showNothing();
arrange();
setUnderlined(INDEX.has.regime);
if (measure) setMeasure(measure);
