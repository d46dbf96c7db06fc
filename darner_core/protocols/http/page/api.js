// Asks the server. What changes something carries the token that only our own page can read.

const API = "/api/v1/";

// A server that has not answered for so long is told to be away. What streams a large body begins within it, too.
const PATIENCE_MS = 30_000;

let token = "";

/** An answer that is an error: `message` is what the server says of it. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server has not answered at all. */
export class Unreachable extends Error {}

export async function session(signal) {
  // Without patience: somebody may be typing a password.
  const found = await (await asked("GET", "session", { signal, patience: null })).json();
  token = found.token;
  return found;
}

export async function get(path, signal) {
  return (await asked("GET", path, { signal })).json();
}

/** The bytes of a body, `most` of them at most: a large one is not loaded whole. */
export async function bytes(path, most, signal) {
  const reader = (await asked("GET", path, { signal, accept: "application/octet-stream" })).body.getReader();
  const found = new Uint8Array(most);
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = value.subarray(0, most - size);
    found.set(part, size);
    size += part.length;
    if (size === most) {
      await reader.cancel();
      break;
    }
  }
  return found.subarray(0, size);
}

/** Change something. The answer's JSON; null if it has none. */
export async function change(method, path, body) {
  let response;
  try {
    response = await asked(method, path, { body, token });
  } catch (error) {
    // A server that was started again has another token. It has refused, so nothing was done yet.
    if (!(error instanceof Refused) || error.status !== 403) throw error;
    const before = token;
    await session();
    if (token === before) throw error;
    response = await asked(method, path, { body, token });
  }
  return response.status === 204 ? null : response.json();
}

async function asked(method, path, { body, signal, token: told, accept = "application/json", patience = AbortSignal.timeout(PATIENCE_MS) }) {
  const headers = { Accept: accept };
  if (told) headers["X-Darner-Token"] = told;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(API + path, {
      method,
      headers,
      signal: AbortSignal.any([signal, patience].filter(Boolean)),
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw new Refused(response.status, await saidBy(response));
  return response;
}

async function saidBy(response) {
  try {
    const problem = await response.json();
    return problem.detail || problem.title;
  } catch {
    return `The server has answered ${response.status}.`;
  }
}
