// How tokens read: exact text, pieces of a character joined, white space and control characters visible.

const WHITESPACE_GLYPHS = { " ": "·", "\t": "⇥", "\n": "⏎", "\r": "␍" };
// Control characters and direction overrides would act on the page instead of being seen.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

class TokenTable {
  constructor() {
    this.text = new Map();
    this.pieces = new Map();
    this.special = new Set();
  }

  add(tokens, pieces, special) {
    for (const [id, text] of Object.entries(tokens || {})) this.text.set(Number(id), String(text));
    for (const [id, hex] of Object.entries(pieces || {})) this.pieces.set(Number(id), bytesOf(hex));
    for (const id of special || []) this.special.add(id);
  }

  /** A token by itself, as tooltips and strips name it. */
  name(id) {
    const bytes = this.pieces.get(id);
    if (bytes) return hexName(bytes);
    if (!this.text.has(id)) return `⟨${id}⟩`;
    const text = this.text.get(id);
    if (text === "") return "∅";
    if (isBlank(text)) return glyphs(text);
    return seen(text).replace(/[\n\t]/g, (c) => WHITESPACE_GLYPHS[c]).replace(/^ +| +$/g, glyphs);
  }

  /** The same where room is scarce: without the spaces around it. */
  short(id) {
    return isBlank(this.text.get(id) ?? "") ? this.name(id) : this.name(id).replace(/^·+(?=.)|·+$/g, "");
  }

  /** The visible texts of neighbouring ids: a character made of several pieces stands where it becomes complete. */
  join(ids) {
    const texts = new Array(ids.length);
    for (let i = 0; i < ids.length; ) {
      if (!this.pieces.has(ids[i])) {
        const text = this.text.get(ids[i]);
        texts[i] = text === undefined ? `⟨${ids[i]}⟩` : seen(text);
        i += 1;
        continue;
      }
      let end = i;
      while (end < ids.length && this.pieces.has(ids[end])) end += 1;
      this.joinPieces(ids, i, end, texts);
      i = end;
    }
    return texts;
  }

  joinPieces(ids, start, end, texts) {
    const decoder = new TextDecoder("utf-8");
    let open = start; // first piece of the character under way
    for (let i = start; i < end; i++) {
      const text = decoder.decode(this.pieces.get(ids[i]), { stream: true });
      texts[i] = seen(text);
      if (text) open = i + 1;
    }
    if (decoder.decode()) for (let i = Math.min(open, end - 1); i < end; i++) texts[i] += hexName(this.pieces.get(ids[i]));
  }

  toJSON() {
    const tokens = {};
    const byte_pieces = {};
    for (const [id, text] of this.text) tokens[id] = text;
    for (const [id, bytes] of this.pieces) byte_pieces[id] = Array.from(bytes, hex).join("");
    return { tokens, byte_pieces, special: Array.from(this.special).sort((a, b) => a - b) };
  }

  /** `join` where the answer, of the ids `final`, ended at a stop string: nothing behind that string is shown, and of the
   * token that it begins in only what comes before it. stop: as the last event says it; null without one. */
  joinUntil(ids, final, stop) {
    const texts = this.join(ids);
    if (!stop) return texts;
    const last = final.length - 1;
    const cuts = [...(stop.characters ? [[stop.place, stop.characters]] : []), ...(last > stop.place || !stop.characters ? [[last, stop.end]] : [])];
    for (const [i, characters] of cuts) {
      if (i < 0 || i >= ids.length || ids[i] !== final[i]) continue;
      texts[i] = seen(Array.from(this.exact(ids.slice(0, i + 1))[i]).slice(0, characters).join(""));
    }
    return texts;
  }

  /** The texts of neighbouring ids as an answer has them: control tokens and unknown ids are none, a character made of
   * several pieces stands where it becomes complete. */
  exact(ids) {
    const encoder = new TextEncoder();
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return ids.map((id) => (this.special.has(id) ? "" : decoder.decode(this.pieces.get(id) || encoder.encode(this.text.get(id) || ""), { stream: true })));
  }

  /** The texts of an answer's tokens: bytes joined, control tokens left out, and so are half a character at its end and
   * what is behind the beginning of a stop string. */
  answer(ids, stop) {
    const texts = this.exact(ids);
    return stop ? texts.map((text, i) => (i < stop.place ? text : i > stop.place ? "" : Array.from(text).slice(0, stop.characters).join(""))) : texts;
  }
}

const hex = (byte) => byte.toString(16).padStart(2, "0");
const hexName = (bytes) => `⟨${Array.from(bytes, hex).join(" ").toUpperCase()}⟩`;
const bytesOf = (text) => Uint8Array.from(String(text).match(/../g) || [], (pair) => parseInt(pair, 16));
const glyphs = (text) => Array.from(text, (c) => WHITESPACE_GLYPHS[c] || c).join("");
const isBlank = (text) => text !== "" && /^\s+$/.test(text);
const seen = (text) =>
  text.replace(UNSEEN, (c) => {
    const code = c.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
