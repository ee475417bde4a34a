// The page: completions that are drawn when they come near, colourings, filters and keys.
"use strict";

const element = (id) => document.getElementById(id);
const list = element("completions");
const articles = new Map(); // row -> its article, made once
const drawn = new Map(); // row -> the spans of its tokens, while they are on the page
let measure = MEASURES.find(({ key }) => key in INDEX.scales) ?? null;
let visible = []; // rows that pass the filters, in order
let focused = null; // [row, token] that the keys stand on
const chosen = { outcome: "all", sort: "order", words: "" };

// Drawing.
const colour = (span, row, token) => {
  const value = measure && numberOf(row, token, measure.key);
  if (value === null) return span.style.removeProperty("--v");
  span.style.setProperty("--v", placeOf(measure, value).toFixed(3));
  span.classList.toggle("under", measure.centre !== undefined && value < measure.centre);
};

const draw = (row) => {
  if (drawn.has(row)) return;
  const spans = INDEX.rows[row].texts.map((text, token) => {
    const span = make("span", { class: "token", role: "option", tabindex: "-1" }, ...visibleText(INDEX.strings[text]));
    const regime = regimeOf(row, token);
    if (regime) span.classList.add(regime);
    span.place = [row, token];
    colour(span, row, token);
    return span;
  });
  if (spans.length) spans[0].tabIndex = 0;
  const body = articles.get(row).lastElementChild;
  body.replaceChildren(...spans);
  body.style.removeProperty("height");
  drawn.set(row, spans);
};

const guessedHeight = (row) => {
  const characters = INDEX.rows[row].texts.reduce((sum, text) => sum + INDEX.strings[text].length, 0);
  return 26 * Math.max(1, Math.ceil((characters * 8.5) / Math.max(300, list.clientWidth))); // of a line, of a character
};

const erase = (row) => {
  const body = articles.get(row).lastElementChild;
  if (!drawn.has(row) || body.contains(document.activeElement)) return;
  body.style.height = `${body.offsetHeight || guessedHeight(row)}px`; // one that was filtered out has none
  body.replaceChildren();
  drawn.delete(row);
};

const near = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => (isIntersecting ? draw : erase)(target.row)),
  { rootMargin: "1000px 0px" },
);

const fact = (name, value, title = "") => {
  const part = make("span", title ? { title } : {}, `${name} `);
  part.append(value === null || value === undefined ? missing() : make("b", {}, ...[value].flat()));
  return part;
};

const summary = (row) => {
  const { problem, correct, stopped, step, answer, reference_answer: reference, reward, advantage, texts } = INDEX.rows[row];
  const verdict = correct === null ? ["not graded", ""] : correct ? ["✓ right", "right"] : ["✗ wrong", "wrong"];
  const line = make("header", {}, make("span", { class: "problem" }, ...visibleText(problem, false)));
  line.append(make("span", { class: `verdict ${verdict[1]}` }, verdict[0]));
  line.append(fact("answer", answer === null ? "none" : visibleText(answer, false)));
  if (INDEX.has.reference_answer) line.append(fact("reference", reference === null ? null : visibleText(reference, false)));
  line.append(fact("tokens", texts.length.toLocaleString("en")));
  line.append(fact("reward", reward === null ? null : format(reward, 3)));
  line.append(fact("A", advantage === null ? null : format(advantage, 3), "advantage"));
  if (INDEX.has.step) line.append(fact("step", step));
  if (stopped === false) line.append(make("span", { class: "cut-off" }, "✂ cut off"));
  return line;
};

const articleOf = (row) => {
  if (!articles.has(row)) {
    const { texts, problem } = INDEX.rows[row];
    const body = make("div", { class: "tokens", role: "listbox", "aria-orientation": "horizontal" });
    body.setAttribute("aria-label", `the ${texts.length} tokens of completion ${row + 1}, problem ${problem}`);
    body.style.height = `${guessedHeight(row)}px`;
    const article = make("article", {}, summary(row), body);
    article.row = row;
    articles.set(row, article);
    near.observe(article);
  }
  return articles.get(row);
};

// Colourings.
const setMeasure = (wanted) => {
  if (!(wanted.key in INDEX.scales)) return;
  measure = wanted;
  list.className = `${measure.look} ${list.classList.contains("underlined") ? "underlined" : ""}`;
  for (const [row, spans] of drawn) spans.forEach((span, token) => colour(span, row, token));
  for (const button of element("measures").children) button.setAttribute("aria-pressed", button.key === measure.key);
  drawLegend();
  if (panel.dataset.token && panel.classList.contains("open")) show(panel.dataset.token.split(":").map(Number));
};

const drawLegend = () => {
  const { shown, seen } = INDEX.scales[measure.key];
  const end = (side) => {
    const beyond = side === 0 ? seen[0] < shown[0] : seen[1] > shown[1];
    return `${beyond ? "≤≥"[side] + " " : ""}${format(shown[side], 2)}`;
  };
  const middle = measure.centre ?? (shown[0] + shown[1]) / 2;
  const ticks = [end(0), format(middle, measure.centre === undefined ? 2 : 0), end(1)];
  const name = make("span", {}, make("b", {}, ...symbolOf(measure)), make("span", { class: "name quiet" }, ` ${measure.name}`));
  element("legend").replaceChildren(
    name,
    make("div", { class: `bar ${measure.look}` }),
    make("span", { class: "unit quiet" }, measure.unit),
    make("div", { class: "ticks" }, ...(isReversed(measure) ? ticks.reverse() : ticks).map((tick) => make("span", {}, tick))),
  );
};

const setUnderlined = (on) => {
  list.classList.toggle("underlined", on);
  element("regimes").classList.toggle("underlined", on);
  element("regimes").firstElementChild?.setAttribute("aria-pressed", on);
};

// The token that is shown, and the one that the keys stand on.
const show = ([row, token]) => {
  for (const span of list.querySelectorAll(".shown")) span.classList.remove("shown");
  drawn.get(row)?.[token]?.classList.add("shown");
  showToken(row, token, measure);
};

const goTo = (row, token) => {
  articleOf(row).scrollIntoView({ block: "nearest" });
  draw(row);
  const spans = drawn.get(row);
  if (!spans.length) return articleOf(row).scrollIntoView({ block: "start" });
  spans[Math.min(Math.max(token, 0), spans.length - 1)].focus();
};

const onFocus = (span) => {
  const [row, token] = span.place;
  const before = focused && drawn.get(focused[0])?.[focused[1]];
  before?.removeAttribute("aria-selected");
  if (focused?.[0] === row && before) before.tabIndex = -1;
  else drawn.get(row)[0].tabIndex = -1;
  span.tabIndex = 0;
  span.setAttribute("aria-selected", "true");
  const value = measure && numberOf(row, token, measure.key);
  const said = value === null ? "" : `, ${measure.name} ${format(value)} ${measure.unit}`;
  span.setAttribute("aria-label", `${JSON.stringify(span.textContent)}, token ${token + 1} of ${drawn.get(row).length}${said}`);
  focused = [row, token];
  show(focused);
};

// The token over or under this one: on the next line that way, the one whose middle is nearest.
const vertical = (row, token, way) => {
  const boxes = drawn.get(row).map((span) => span.getClientRects()[0] ?? span.getBoundingClientRect());
  const here = boxes[token], middle = here.left + here.width / 2;
  const apart = (box) => way * (box.top - here.top);
  const lines = boxes.map(apart).filter((distance) => distance > here.height / 2);
  if (!lines.length) return null;
  const line = Math.min(...lines);
  const away = (index) => Math.abs(boxes[index].left + boxes[index].width / 2 - middle);
  return [...boxes.keys()].filter((index) => Math.abs(apart(boxes[index]) - line) < here.height / 2).reduce((a, b) => (away(b) < away(a) ? b : a));
};

const step = (by) => {
  if (!focused) return visible.length && goTo(visible[0], 0);
  const [row, token] = [focused[0], focused[1] + by];
  const at = visible.indexOf(row);
  if (token < 0 && at > 0) goTo(visible[at - 1], Infinity);
  else if (token >= INDEX.rows[row].texts.length && at + 1 < visible.length) goTo(visible[at + 1], 0);
  else goTo(row, token);
};

const stepCompletion = (by) => {
  if (!visible.length) return;
  const at = focused ? visible.indexOf(focused[0]) : -1;
  const row = visible[Math.min(Math.max(at + by, 0), visible.length - 1)];
  goTo(row, 0);
  articles.get(row).scrollIntoView({ block: "start" });
};

const stepLine = (way) => {
  if (!focused) return step(0);
  const [row, token] = focused, found = vertical(row, token, way);
  if (found !== null) goTo(row, found);
  else step(way > 0 ? INDEX.rows[row].texts.length - token : -token - 1);
};

// Filters and order.
const ORDERS = {
  order: ["as in the file", () => 0],
  longest: ["longest first", (a, b) => b.texts.length - a.texts.length],
  shortest: ["shortest first", (a, b) => a.texts.length - b.texts.length],
  highest: ["highest reward first", (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || 0],
  lowest: ["lowest reward first", (a, b) => (a.reward ?? Infinity) - (b.reward ?? Infinity) || 0],
};
const OUTCOMES = { all: () => true, right: ({ correct }) => correct === true, wrong: ({ correct }) => correct === false };

const arrange = () => {
  const words = chosen.words.toLowerCase();
  const found = (row) => [INDEX.rows[row].problem, INDEX.rows[row].answer ?? "", textOf(row)].some((text) => text.toLowerCase().includes(words));
  const kept = [...INDEX.rows.keys()].filter((row) => OUTCOMES[chosen.outcome](INDEX.rows[row]) && (!words || found(row)));
  visible = kept.sort((a, b) => ORDERS[chosen.sort][1](INDEX.rows[a], INDEX.rows[b]) || a - b);
  if (focused && !visible.includes(focused[0])) focused = null;
  const nothing = make("p", { class: "nothing" }, "No completion is like that.");
  list.replaceChildren(...(visible.length ? visible.map(articleOf) : [nothing]));
  const tokens = visible.reduce((sum, row) => sum + INDEX.rows[row].texts.length, 0);
  const of = visible.length < INDEX.rows.length ? ` of ${INDEX.rows.length.toLocaleString("en")}` : "";
  element("count").textContent = `${visible.length.toLocaleString("en")}${of} completions, ${tokens.toLocaleString("en")} tokens`;
  for (const button of element("outcome").children) button.setAttribute("aria-pressed", button.key === chosen.outcome);
};
