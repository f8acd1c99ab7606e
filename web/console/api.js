// Calls the ops API with the key that the operator typed in. The key is kept for this tab only.

const STORED = "boxoffice-console-key";

/** The API is beside the console: /v1 next to /console/. */
const ROOT = new URL("../", document.baseURI.split("#")[0]);

/** How long an answer may take. */
const REQUEST_TIMEOUT_MS = 30_000;

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.title ?? (status ? `The server answered ${status}.` : "The server does not answer."));
    Object.assign(this, { status, code: body?.code, errors: body?.errors });
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (text) => sessionStorage.setItem(STORED, text),
  forget: () => sessionStorage.removeItem(STORED),
};

/** What the key may do; each role may do what those before it may. */
const ROLES = ["viewer", "operator", "admin"];
export const session = { name: null, role: null };
export const may = (role) => ROLES.indexOf(session.role) >= ROLES.indexOf(role);

/** Signs in: asks whose key it is. */
export async function signIn() {
  Object.assign(session, await get("v1/ops/key"));
}

export function signOut() {
  key.forget();
  Object.assign(session, { name: null, role: null });
  dispatchEvent(new Event("signed-out"));
}

export function get(path, parameters = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return send(url, { method: "GET" });
}

/** A change. It carries an Idempotency-Key, so that a second click does it once. */
export function post(path, body, once = newKey()) {
  const headers = { "content-type": "application/json", "idempotency-key": once };
  return send(new URL(path, ROOT), { method: "POST", headers, body: JSON.stringify(body) });
}

/** A key for a change. (crypto.randomUUID is missing where the page comes by plain HTTP from another machine.) */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function send(url, { headers = {}, ...options }) {
  let answer;
  try {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    headers = { ...headers, authorization: `Bearer ${key.get() ?? ""}`, accept: "application/json" };
    answer = await fetch(url, { ...options, headers, signal, cache: "no-store", credentials: "omit" });
  } catch {
    throw new ApiError(0);
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok) return body;
  const error = new ApiError(answer.status, body);
  if (answer.status === 401 && session.name) signOut();
  throw error;
}
