// Numbers, times and bytes as people read them.

const WHOLE = new Intl.NumberFormat("en");
const FEW = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

export const NONE = "–";

export function count(number) {
  return number === null || number === undefined ? NONE : WHOLE.format(number);
}

/** In so few characters that it fits into a narrow place. */
export function short(number) {
  if (number === null || number === undefined) return NONE;
  if (Math.abs(number) < 10_000) return (Number.isInteger(number) ? WHOLE : FEW).format(number);
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(number) >= size) return `${FEW.format(number / size)} ${unit}`;
  }
  return FEW.format(number);
}

export function rate(number) {
  if (number === null || number === undefined) return NONE;
  return number === 0 ? "0" : number >= 100 ? WHOLE.format(Math.round(number)) : number.toFixed(1);
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return NONE;
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let at = -1;
  let left = bytes;
  do {
    left /= 1024;
    at += 1;
  } while (left >= 1024 && at < units.length - 1);
  return `${FEW.format(left)} ${units[at]}`;
}

const PARTS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];

/** A duration, by its two largest units. */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const at = PARTS.findIndex(([, length]) => ms >= length);
  const [unit, length] = PARTS[at];
  const whole = Math.floor(ms / length);
  if (unit === "s") return `${whole} s`;
  const [lower, lowerLength] = PARTS[at + 1];
  const rest = Math.floor((ms % length) / lowerLength);
  return rest && whole < 10 ? `${whole} ${unit} ${rest} ${lower}` : `${whole} ${unit}`;
}

/** How long ago, or how long until then. */
export function ago(ms, now) {
  return ms > now ? `in ${duration(ms - now)}` : `${duration(now - ms)} ago`;
}

export function clock(ms) {
  return CLOCK.format(ms);
}

export function time(ms) {
  return DAY_AND_CLOCK.format(ms);
}

// Controls, and what turns the direction of a text or takes no room: shown as escapes, so that nothing hides.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

function escaped(character) {
  const code = character.codePointAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** A name in one line. */
export function visible(text) {
  return text.replace(HIDDEN, escaped);
}

/** A body as text: lines stay lines, and what is no UTF-8 is shown as \xff. */
export function asText(bytes) {
  const text = decoded(bytes);
  return text.replace(HIDDEN, (one) => (one === "\n" || one === "\t" ? one : escaped(one)));
}

function decoded(bytes) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return strict.decode(bytes);
  } catch {
    return pieces(bytes);
  }
}

/** Text where it is text, and escapes for the other bytes. */
function pieces(bytes) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let found = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      if (length === 0 || at + length > bytes.length) throw new TypeError();
      found += strict.decode(bytes.subarray(at, at + length));
      at += length;
    } catch {
      found += `\\x${first.toString(16).padStart(2, "0")}`;
      at += 1;
    }
  }
  return found;
}

/** A body as hexadecimal numbers, 16 in a line or 8 on a phone, with the place before and the characters behind. */
export function asHex(bytes, inLine = globalThis.innerWidth < 600 ? 8 : 16) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += inLine) {
    const some = Array.from(bytes.subarray(at, at + inLine));
    const numbers = some.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const characters = some.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${numbers.padEnd(inLine * 3 - 1)}  ${characters}`);
  }
  return lines.join("\n");
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
