// A client of Box Office's buyer API for browsers and Node 20 or newer: one class, no dependencies, no build step.
// The types come from the OpenAPI document (schema.d.ts; ../generate.sh writes it anew).

/** @typedef {import('./schema').components['schemas']} Schemas */
/** @typedef {Schemas['QueueToken']} Place */
/** @typedef {Schemas['Reservation']} Reservation */
/** @typedef {Schemas['Receipt']} Receipt */
/** @typedef {Schemas['Problem']} Problem */
/** @typedef {import('./schema').operations} Operations */
/** @typedef {Operations['get_concerts_concert_performances']['responses'][200]['content']['application/json']['items'][number]} Performance */
/** @typedef {Operations['get_points_entries']['responses'][200]['content']['application/json']['items'][number]} Entry */
/** @typedef {Schemas['Seat']} Seat */
/**
 * @template T
 * @typedef {{ items: T[], next_cursor: string | null }} Page
 */
/**
 * @typedef {object} Sent
 * @property {unknown} [body]
 * @property {string} [place] The queue token.
 * @property {string} [key] The idempotency key. A request with a key is sent again until its answer is final.
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */
/** @typedef {{ status: number, body: any, headers: Headers }} Answer */

/** How long a request that is not settled (202, 503, `request_in_progress`) is sent again, in milliseconds. */
const SETTLE_TIMEOUT_MS = 30_000;
/** The pause before that, unless the answer names one. */
const RETRY_PAUSE_MS = 1_000;
/** The longest pause that is waited for without asking the caller. */
const RETRY_PAUSE_MAX_MS = 5_000;

/** How long the first event of a stream may take, in milliseconds. */
const FIRST_EVENT_TIMEOUT_MS = 8_000;

/** A refusal of the service, or `unavailable` where it could not be reached. */
export class ShopError extends Error {
  /**
   * @param {number} status 0 if there was no answer
   * @param {Partial<Problem> & { code: string }} problem
   * @param {number | null} retryAfterSeconds
   */
  constructor(status, problem, retryAfterSeconds = null) {
    super(problem.detail ?? problem.title ?? problem.code);
    this.name = 'ShopError';
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** A key for one intent of the buyer: whatever is sent under it is done once. */
export function newKey() {
  return crypto.randomUUID();
}

export class ShopClient {
  /** @param {{ base?: string, token?: () => string | null, language?: () => string }} [options] */
  constructor({ base = '', token = () => null } = {}) {
    this.base = base.replace(/\/$/, '');
    /** Returns the access token of the user, or null. */
    this.token = token;
  }

  /** Makes a user (local mode only). @param {string} name @returns {Promise<Schemas['UserCreated']>} */
  createUser(name) {
    return this.#json('POST', '/v1/users', { body: { name } });
  }

  /** @param {string} [cursor] @returns {Promise<Page<Schemas['Concert']>>} */
  concerts(cursor) {
    return this.#json('GET', `/v1/concerts${query({ limit: '100', cursor })}`);
  }

  /** @param {string} concert @returns {Promise<Schemas['ConcertView']>} */
  concert(concert) {
    return this.#json('GET', `/v1/concerts/${concert}`);
  }

  /**
   * Joins the line. The same user gets the same place again; `previous` is the token from before, if there is one.
   * @param {string} concert @param {string} [previous] @returns {Promise<Place>}
   */
  join(concert, previous) {
    return this.#json('POST', `/v1/concerts/${concert}/queue-tokens`, { place: previous });
  }

  /** @param {string} place @param {AbortSignal} [signal] @returns {Promise<Place>} */
  place(place, signal) {
    return this.#json('GET', '/v1/queue-tokens/current', { place, signal });
  }

  /**
   * Follows a place by its event stream, which needs the browser's EventSource. `take` gets the place at once and whenever it
   * changes; `lost` is called once when the stream ends or brings nothing: then ask by `place`. Aborting `signal` ends it.
   * @param {string} place @param {{ take: (place: Place) => void, lost: () => void, signal: AbortSignal }} handlers
   * @returns {Promise<void>}
   */
  async follow(place, { take, lost, signal }) {
    const issued = await this.#json('POST', '/v1/queue-tokens/current/stream-keys', { place, signal });
    if (signal.aborted) return;
    const stream = new EventSource(`${this.base}/v1/queue-tokens/current/events${query({ key: issued.key })}`);
    const end = () => {
      clearTimeout(silence);
      stream.close();
      if (!signal.aborted) lost();
    };
    // The first event comes at once, unless something on the way holds it back.
    const silence = setTimeout(end, FIRST_EVENT_TIMEOUT_MS);
    stream.onmessage = ({ data }) => {
      clearTimeout(silence);
      take(JSON.parse(data));
    };
    // A lost connection is opened again by the browser. A refusal, and a place that has ended, are not.
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) end();
    };
    signal.addEventListener('abort', () => {
      clearTimeout(silence);
      stream.close();
    });
  }

  /** Gives the place up. @param {string} place @returns {Promise<void>} */
  async leave(place) {
    await this.send('DELETE', '/v1/queue-tokens/current', { place });
  }

  /** @param {string} concert @param {string} place @returns {Promise<Page<Performance>>} */
  performances(concert, place) {
    return this.#json('GET', `/v1/concerts/${concert}/performances${query({ limit: '100' })}`, { place });
  }

  /**
   * The seats of a date. With the `version` of an earlier answer only what changed since, where the service still knows it;
   * with the `etag` of an earlier answer null if it is the same.
   * @param {string} performance @param {string} place @param {{ since?: string, etag?: string, signal?: AbortSignal }} [known]
   * @returns {Promise<{ etag: string | null, map: Schemas['SeatMapBody'] } | null>}
   */
  async seats(performance, place, { since, etag, signal } = {}) {
    const headers = etag ? { 'if-none-match': etag } : undefined;
    const path = `/v1/performances/${performance}/seats${query({ since })}`;
    const answer = await this.send('GET', path, { place, headers, signal });
    return answer.status === 304 ? null : { etag: answer.headers.get('etag'), map: answer.body };
  }

  /** Holds seats, all or none. @param {string} performance @param {number[]} seats @param {string} place @param {string} key @returns {Promise<Reservation>} */
  hold(performance, seats, place, key) {
    return this.#json('POST', '/v1/reservations', { body: { performance_id: performance, seats }, place, key });
  }

  /**
   * Holds the best free seats, all or none.
   * @param {string} performance
   * @param {{ count: number, section?: string, together?: boolean, accessible?: boolean }} best
   * @param {string} place @param {string} key @returns {Promise<Reservation>}
   */
  holdBest(performance, best, place, key) {
    return this.#json('POST', '/v1/reservations', { body: { performance_id: performance, best }, place, key });
  }

  /** @param {string} reservation @returns {Promise<Reservation>} */
  reservation(reservation) {
    return this.#json('GET', `/v1/reservations/${reservation}`);
  }

  /** @param {string} [cursor] @returns {Promise<Page<Reservation>>} */
  reservations(cursor) {
    return this.#json('GET', `/v1/reservations${query({ limit: '20', cursor })}`);
  }

  /** @param {string} reservation @param {string} place @param {string} key @returns {Promise<Receipt>} */
  pay(reservation, place, key) {
    return this.#json('POST', `/v1/reservations/${reservation}/payment`, { place, key });
  }

  /** Releases a hold, or refunds a confirmed reservation. @param {string} reservation @param {string} key @returns {Promise<Reservation>} */
  cancel(reservation, key) {
    return this.#json('POST', `/v1/reservations/${reservation}/cancellation`, { key });
  }

  /** @returns {Promise<Schemas['Balance']>} */
  points() {
    return this.#json('GET', '/v1/points');
  }

  /** Adds points (local mode only). @param {number} amount @param {string} key @returns {Promise<Schemas['Charged']>} */
  charge(amount, key) {
    return this.#json('POST', '/v1/points/charges', { body: { amount }, key });
  }

  /** @param {string} [cursor] @returns {Promise<Page<Entry>>} */
  entries(cursor) {
    return this.#json('GET', `/v1/points/entries${query({ limit: '50', cursor })}`);
  }

  /**
   * Sends one request. One with a key is sent again, under the same key, until its answer is final.
   * @param {string} method @param {string} path @param {Sent} [sent] @returns {Promise<Answer>}
   */
  async send(method, path, sent = {}) {
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const { answer, refusal } = await this.#once(method, path, sent);
      if (answer && answer.status !== 202) return answer;
      const isOpen = answer || ['unavailable', 'request_in_progress'].includes(refusal?.code ?? '');
      const pause = Math.min((refusal?.retryAfterSeconds ?? 0) * 1_000 || RETRY_PAUSE_MS, RETRY_PAUSE_MAX_MS);
      if (!isOpen || !sent.key || performance.now() + pause > deadline) {
        if (answer) return answer;
        throw refusal;
      }
      await new Promise((wake) => setTimeout(wake, pause));
    }
  }

  /** @param {string} method @param {string} path @param {Sent} sent @returns {Promise<{ answer?: Answer, refusal?: ShopError }>} */
  async #once(method, path, { body, place, key, headers, signal }) {
    const all = new Headers(headers);
    const token = this.token();
    if (token) all.set('authorization', `Bearer ${token}`);
    if (place) all.set('queue-token', place);
    if (key) all.set('idempotency-key', key);
    if (body !== undefined) all.set('content-type', 'application/json');
    let response;
    let text;
    try {
      response = await fetch(this.base + path, {
        method,
        headers: all,
        body: body === undefined ? undefined : JSON.stringify(body),
        // Entity tags are this client's business: the browser's cache would turn a 304 into a whole answer.
        cache: 'no-store',
        signal,
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      return { refusal: new ShopError(0, { code: 'unavailable', detail: 'The service cannot be reached.' }) };
    }
    const value = text && /json/.test(response.headers.get('content-type') ?? '') ? JSON.parse(text) : null;
    if (response.ok || response.status === 304) {
      return { answer: { status: response.status, body: value, headers: response.headers } };
    }
    const wait = Number.parseInt(response.headers.get('retry-after') ?? '', 10);
    const problem = value ?? { code: response.status >= 500 ? 'unavailable' : 'internal' };
    return { refusal: new ShopError(response.status, problem, Number.isNaN(wait) ? null : wait) };
  }

  /** @param {string} method @param {string} path @param {Sent} [sent] @returns {Promise<any>} */
  async #json(method, path, sent) {
    return (await this.send(method, path, sent)).body;
  }
}

/** @param {Record<string, string | undefined>} parts */
function query(parts) {
  const given = Object.entries(parts).filter(([, value]) => value !== undefined);
  return given.length ? `?${new URLSearchParams(/** @type {any} */ (given))}` : '';
}
