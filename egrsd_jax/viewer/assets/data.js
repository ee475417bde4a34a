// What the file holds: one JSON element for all completions, and one for the tokens of each, read when it is needed.
"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const INDEX = read("index");
const REGIMES = {
  lock: "sure",
  mid: "half sure",
  pivot: "unsure, soon sure",
  fork: "unsure for longer",
};
const REGIME_OF = { l: "lock", m: "mid", p: "pivot", f: "fork" };
const CL = INDEX.gate === "gate_lookahead";

// The colourings, in the order of their digits. Those with a centre are blue under it and orange over it.
const MEASURES = [
  { key: "teacher_entropy", symbol: ["H"], name: "teacher entropy", unit: "nats", look: "sequential amber" },
  { key: "delta", symbol: ["δ"], name: "log p teacher − log p student", unit: "nats", look: "diverging", centre: 0 },
  { key: "weight", symbol: ["w"], name: "direction weight", unit: "", look: "diverging", centre: 1 },
  { key: "gate", symbol: ["ω"], name: "gate", unit: "", look: "sequential violet" },
  { key: "gate_lookahead", symbol: ["ω", "CL"], name: "gate with lookahead", unit: "", look: "sequential violet" },
  { key: "token_advantage", symbol: CL ? ["A·w·ω", "CL"] : ["A·w·ω"], name: "token advantage", unit: "", look: "diverging", centre: 0 },
];
const symbolOf = ({ symbol: [letter, above, below] }) => [letter, above ? make("sup", {}, above) : "", below ? make("sub", {}, below) : ""];

const parsed = new Map();
const tokensOf = (row) => {
  if (!parsed.has(row)) parsed.set(row, read(`tokens-${row}`));
  return parsed.get(row);
};
const textOf = (row) => INDEX.rows[row].texts.map((text) => INDEX.strings[text]).join("");

// A number of a token, or null where the file has none. They are kept as whole numbers, in ten-thousandths.
const numberOf = (row, token, key) => {
  if (key === "advantage") return INDEX.rows[row].advantage;
  if (key === "token_advantage") {
    const factors = ["advantage", "weight", INDEX.gate].map((factor) => numberOf(row, token, factor));
    return factors.includes(null) ? null : factors.reduce((product, factor) => product * factor);
  }
  const column = tokensOf(row)[key];
  return column ? column[token] / INDEX.unit : null;
};
const regimeOf = (row, token) => REGIME_OF[tokensOf(row).regime?.[token]] ?? null;

// Of a gate, what it takes away is coloured.
const isReversed = ({ key }) => key.startsWith("gate");

// Where a value stands on the scale of its measure, in [0, 1]: 0 has no colour.
const placeOf = (measure, value) => {
  const [low, high] = INDEX.scales[measure.key].shown;
  const [from, to] = measure.centre === undefined
    ? (isReversed(measure) ? [high, low] : [low, high])
    : [measure.centre, value < measure.centre ? low : high];
  return Math.min(1, Math.max(0, (value - from) / (to - from)));
};
