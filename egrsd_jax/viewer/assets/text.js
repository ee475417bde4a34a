// Text of a model as nodes: what cannot be seen is made visible, and nothing is ever read as HTML.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// Spaces, control characters, and characters that take no room or change the direction of what follows.
const UNSEEN = /( +)|([\u0000-\u001f\u007f])|([\u0080-\u00a0\u00ad\u061c\u115f\u1160\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufeff\ufff0-\ufffb\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff])/g;

// Their pictures are the Unicode block made for it, U+2400; the others are named by their number.
const picture = (character) => {
  const code = character.charCodeAt(0);
  if (code < 32) return String.fromCharCode(0x2400 + code);
  if (code === 127) return "\u2421";
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
};

// Nodes for a text. A newline and a tab have their mark and, in `laidOut` text, their effect as well.
const visibleText = (text, laidOut = true) => {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > end) nodes.push(text.slice(end, found.index));
    end = found.index + found[0].length;
    const [character, spaces] = found;
    if (spaces) nodes.push(make("span", { class: "space" }, spaces));
    else if (character === "\n") nodes.push(make("span", { class: "mark" }, "↵"), laidOut ? "\n" : "");
    else if (character === "\t") nodes.push(make("span", { class: "mark" }, "⇥"), laidOut ? "\t" : "");
    else nodes.push(make("span", { class: "mark" }, picture(character)));
  }
  if (end < text.length) nodes.push(text.slice(end));
  if (!text) nodes.push(make("span", { class: "mark" }, "∅"));
  return nodes;
};

// A number with its sign as in print; null is what nobody recorded.
const format = (value, digits = 4) => value.toFixed(digits).replace("-", "−");
const missing = () => make("span", { class: "quiet" }, "missing");
