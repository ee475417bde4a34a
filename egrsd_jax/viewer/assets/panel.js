// Everything that is known of one token.
"use strict";

const ROWS = [
  { key: "student_logp", symbol: ["log p", null, "S"], name: "student", unit: "nats" },
  { key: "teacher_logp", symbol: ["log p", null, "T"], name: "teacher", unit: "nats" },
  { ...MEASURES[1], name: "teacher − student" },
  { key: "student_entropy", symbol: ["H", null, "S"], name: "student entropy", unit: "nats" },
  MEASURES[0],
  { key: "entropy_lookahead", symbol: ["H", "CL"], name: "least of the next", unit: "nats" },
  ...MEASURES.slice(2, 5),
  { key: "advantage", symbol: ["A"], name: "advantage", unit: "" },
  MEASURES[5],
];
const panel = document.getElementById("panel");

const numberRow = (row, token, quantity, coloured) => {
  const value = numberOf(row, token, quantity.key);
  const line = make("tr", coloured ? { class: "coloured" } : {});
  const name = [make("span", { class: "quiet" }, ` ${quantity.name}`)];
  if (value !== null && quantity.key.endsWith("_logp")) name.push(make("span", { class: "quiet" }, `, p ${percent(value)}`));
  line.append(
    make("th", { scope: "row" }, ...symbolOf(quantity)),
    make("td", { class: "name" }, ...name),
    make("td", { class: "number" }, value === null ? missing() : format(value)),
    make("td", {}, value === null ? "" : quantity.unit),
  );
  return line;
};

const percent = (logp) => {
  const share = 100 * Math.exp(logp);
  if (share >= 99.95) return ">99.9%";
  return share >= 0.05 ? `${share.toFixed(1)}%` : "<0.1%";
};

// The likeliest tokens under one of the two. The one that was drawn is marked: it has its text, or, where a tokenizer
// puts the space before a word into neither, its words and its log-probability.
const alternatives = (who, pairs, chosen, chosenLogp) => {
  const isChosen = (text, logp) =>
    text === chosen || (text.trim() === chosen.trim() && chosenLogp !== null && Math.abs(logp - chosenLogp) < 0.001);
  const part = make("section", {}, make("h3", {}, who));
  if (!pairs) return (part.append(make("p", {}, missing())), part);
  const list = make("ol");
  for (let k = 0; k < pairs.length; k += 2) {
    const [text, logp] = [INDEX.strings[pairs[k]], pairs[k + 1] / INDEX.unit];
    const item = make("li", isChosen(text, logp) ? { class: "chosen" } : {});
    item.append(make("code", {}, ...visibleText(text, false)), make("span", { class: "number" }, percent(logp)));
    item.title = `log p ${format(logp)} nats`;
    item.style.setProperty("--p", Math.exp(logp));
    list.append(item);
  }
  part.append(list);
  return part;
};

// The measure over the tokens about this one, a bar each: how far from the blank end of its scale.
const REACH = 32;
const trace = (row, token, measure) => {
  const bars = make("div", { class: `trace ${measure.look}`, "aria-hidden": "true" });
  for (let at = token - REACH; at <= token + REACH; at += 1) {
    const bar = make("i", at === token ? { class: "here" } : {});
    const value = at in INDEX.rows[row].texts ? numberOf(row, at, measure.key) : null;
    if (value !== null) bar.append(colouredBar(measure, value));
    bars.append(bar);
  }
  return make("section", {}, make("h3", {}, isReversed(measure) ? "1 − " : "", ...symbolOf(measure), ` of ${REACH} tokens before and after`), bars);
};
const colouredBar = (measure, value) => {
  const bar = make("b", value < measure.centre ? { class: "under" } : {});
  bar.style.setProperty("--v", placeOf(measure, value).toFixed(3));
  return bar;
};

const showToken = (row, token, measure) => {
  const { texts } = INDEX.rows[row];
  const known = tokensOf(row);
  const text = INDEX.strings[texts[token]];
  const regime = regimeOf(row, token);
  const close = make("button", { type: "button", class: "close", "aria-label": "close" }, "×");
  close.addEventListener("click", () => panel.classList.remove("open"));
  const table = make("tbody", {}, ...ROWS.map((quantity) => numberRow(row, token, quantity, quantity.key === measure?.key)));
  panel.replaceChildren(
    close,
    make("h2", {}, make("span", {}, ...visibleText(text, false))),
    make("p", { class: "quiet" }, `token ${token + 1} of ${texts.length}, id ${known.ids[token]}, completion ${row + 1}`),
    make("p", {}, "regime: ", ...(regime ? [make("b", {}, regime), `, the teacher is ${REGIMES[regime]}`] : [missing()])),
    make("table", {}, table),
    measure ? trace(row, token, measure) : "",
    make("div", { class: "alternatives" },
      alternatives("likeliest, teacher", known.teacher_top?.[token], text, numberOf(row, token, "teacher_logp")),
      alternatives("likeliest, student", known.student_top?.[token], text, numberOf(row, token, "student_logp"))),
  );
  panel.classList.add("open");
  panel.dataset.token = `${row}:${token}`;
};
const showNothing = () => {
  panel.classList.remove("open");
  panel.replaceChildren(make("p", { class: "quiet" }, "Point at a token, or go to one with the keys, and its numbers stand here. ? lists the keys."));
};
