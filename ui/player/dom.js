// Small helpers. Model text only ever reaches the page through textContent.

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setData(node, key, value) {
  if (value === null || value === undefined) {
    if (key in node.dataset) delete node.dataset[key];
  } else if (node.dataset[key] !== String(value)) node.dataset[key] = value;
}

function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const probability = (p) => (p === undefined || p === null ? "–" : p > 0 && p < 0.005 ? "<0.01" : p.toFixed(2));
const seconds = (ms) => (ms < 9950 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const FINISHES = { eos: "ended with EOS", stop: "ended at a stop string", length: "reached the length limit", stopped: "stopped", time: "reached the time limit" };
const PHASES = { prefill: "prefill", decode: "decode", denoise: "denoise", refresh: "refresh", draft: "draft", verify: "verify" };
