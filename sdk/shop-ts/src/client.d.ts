/** A key for one intent of the buyer: whatever is sent under it is done once. */
export function newKey(): `${string}-${string}-${string}-${string}-${string}`;
/** A refusal of the service, or `unavailable` where it could not be reached. */
export class ShopError extends Error {
    /**
     * @param {number} status 0 if there was no answer
     * @param {Partial<Problem> & { code: string }} problem
     * @param {number | null} retryAfterSeconds
     */
    constructor(status: number, problem: Partial<Problem> & {
        code: string;
    }, retryAfterSeconds?: number | null);
    status: number;
    code: "malformed_request" | "unauthenticated" | "insufficient_points" | "queue_token_required" | "queue_token_invalid" | "queue_token_waiting" | "queue_token_expired" | "queue_token_wrong_user" | "queue_token_wrong_concert" | "forbidden" | "local_mode_only" | "not_found" | "method_not_allowed" | "request_timeout" | "payload_too_large" | "seat_taken" | "no_seats_together" | "access_code_used_up" | "reservation_not_payable" | "reservation_not_cancellable" | "request_in_progress" | "sold_out" | "queue_closed" | "already_redeemed" | "ticket_void" | "ticket_not_transferable" | "wrong_date" | "illegal_act" | "not_waiting" | "version_exists" | "workflow_retired" | "performance_cancelled" | "performance_changed" | "hold_expired" | "transfer_over" | "invalid_request" | "sale_not_open" | "access_code_invalid" | "seat_unknown" | "too_many_seats" | "balance_limit" | "goodwill_limit" | "invalid_definition" | "unsafe_definition" | "check_unfinished" | "idempotency_key_required" | "idempotency_key_reused" | "rate_limited" | "unavailable" | "internal";
    problem: Partial<{
        allowed?: string[] | null;
        balance?: number | null;
        code: import("./schema").components["schemas"]["Code"];
        counter_example?: unknown;
        detail: string;
        errors?: import("./schema").components["schemas"]["Fault"][] | null;
        just_cancelled?: number[] | null;
        largest_group?: number | null;
        limit?: number | null;
        line?: number | null;
        outcome?: unknown;
        reason?: string | null;
        required?: number | null;
        reservation_status?: string | null;
        retry_after_seconds?: number | null;
        saga_status?: string | null;
        seats?: number[] | null;
        seats_left?: number | null;
        section?: string | null;
        status: number;
        title: string;
        type: string;
        until?: string | null;
        uses_left?: number | null;
    }> & {
        code: string;
    };
    retryAfterSeconds: number | null;
}
export class ShopClient {
    /** @param {{ base?: string, token?: () => string | null, language?: () => string }} [options] */
    constructor({ base, token }?: {
        base?: string;
        token?: () => string | null;
        language?: () => string;
    });
    base: string;
    /** Returns the access token of the user, or null. */
    token: () => string | null;
    /** Makes a user (local mode only). @param {string} name @returns {Promise<Schemas['UserCreated']>} */
    createUser(name: string): Promise<Schemas["UserCreated"]>;
    /** @param {string} [cursor] @returns {Promise<Page<Schemas['Concert']>>} */
    concerts(cursor?: string): Promise<Page<Schemas["Concert"]>>;
    /** @param {string} concert @returns {Promise<Schemas['ConcertView']>} */
    concert(concert: string): Promise<Schemas["ConcertView"]>;
    /**
     * Joins the line. The same user gets the same place again; `previous` is the token from before, if there is one.
     * @param {string} concert @param {string} [previous] @returns {Promise<Place>}
     */
    join(concert: string, previous?: string): Promise<Place>;
    /** @param {string} place @param {AbortSignal} [signal] @returns {Promise<Place>} */
    place(place: string, signal?: AbortSignal): Promise<Place>;
    /**
     * Follows a place by its event stream, which needs the browser's EventSource. `take` gets the place at once and whenever it
     * changes; `lost` is called once when the stream ends or brings nothing: then ask by `place`. Aborting `signal` ends it.
     * @param {string} place @param {{ take: (place: Place) => void, lost: () => void, signal: AbortSignal }} handlers
     * @returns {Promise<void>}
     */
    follow(place: string, { take, lost, signal }: {
        take: (place: Place) => void;
        lost: () => void;
        signal: AbortSignal;
    }): Promise<void>;
    /** Gives the place up. @param {string} place @returns {Promise<void>} */
    leave(place: string): Promise<void>;
    /** @param {string} concert @param {string} place @returns {Promise<Page<Performance>>} */
    performances(concert: string, place: string): Promise<Page<Performance>>;
    /**
     * The seats of a date. With the `version` of an earlier answer only what changed since, where the service still knows it;
     * with the `etag` of an earlier answer null if it is the same.
     * @param {string} performance @param {string} place @param {{ since?: string, etag?: string, signal?: AbortSignal }} [known]
     * @returns {Promise<{ etag: string | null, map: Schemas['SeatMapBody'] } | null>}
     */
    seats(performance: string, place: string, { since, etag, signal }?: {
        since?: string;
        etag?: string;
        signal?: AbortSignal;
    }): Promise<{
        etag: string | null;
        map: Schemas["SeatMapBody"];
    } | null>;
    /** Holds seats, all or none. @param {string} performance @param {number[]} seats @param {string} place @param {string} key @returns {Promise<Reservation>} */
    hold(performance: string, seats: number[], place: string, key: string): Promise<Reservation>;
    /**
     * Holds the best free seats, all or none.
     * @param {string} performance
     * @param {{ count: number, section?: string, together?: boolean, accessible?: boolean }} best
     * @param {string} place @param {string} key @returns {Promise<Reservation>}
     */
    holdBest(performance: string, best: {
        count: number;
        section?: string;
        together?: boolean;
        accessible?: boolean;
    }, place: string, key: string): Promise<Reservation>;
    /** @param {string} reservation @returns {Promise<Reservation>} */
    reservation(reservation: string): Promise<Reservation>;
    /** @param {string} [cursor] @returns {Promise<Page<Reservation>>} */
    reservations(cursor?: string): Promise<Page<Reservation>>;
    /** @param {string} reservation @param {string} place @param {string} key @returns {Promise<Receipt>} */
    pay(reservation: string, place: string, key: string): Promise<Receipt>;
    /** Releases a hold, or refunds a confirmed reservation. @param {string} reservation @param {string} key @returns {Promise<Reservation>} */
    cancel(reservation: string, key: string): Promise<Reservation>;
    /** @returns {Promise<Schemas['Balance']>} */
    points(): Promise<Schemas["Balance"]>;
    /** Adds points (local mode only). @param {number} amount @param {string} key @returns {Promise<Schemas['Charged']>} */
    charge(amount: number, key: string): Promise<Schemas["Charged"]>;
    /** @param {string} [cursor] @returns {Promise<Page<Entry>>} */
    entries(cursor?: string): Promise<Page<Entry>>;
    /**
     * Sends one request. One with a key is sent again, under the same key, until its answer is final.
     * @param {string} method @param {string} path @param {Sent} [sent] @returns {Promise<Answer>}
     */
    send(method: string, path: string, sent?: Sent): Promise<Answer>;
    #private;
}
export type Schemas = import("./schema").components["schemas"];
export type Place = Schemas["QueueToken"];
export type Reservation = Schemas["Reservation"];
export type Receipt = Schemas["Receipt"];
export type Problem = Schemas["Problem"];
export type Operations = import("./schema").operations;
export type Performance = Operations["get_concerts_concert_performances"]["responses"][200]["content"]["application/json"]["items"][number];
export type Entry = Operations["get_points_entries"]["responses"][200]["content"]["application/json"]["items"][number];
export type Seat = Schemas["Seat"];
export type Page<T> = {
    items: T[];
    next_cursor: string | null;
};
export type Sent = {
    body?: unknown;
    /**
     * The queue token.
     */
    place?: string | undefined;
    /**
     * The idempotency key. A request with a key is sent again until its answer is final.
     */
    key?: string | undefined;
    headers?: Record<string, string> | undefined;
    signal?: AbortSignal | undefined;
};
export type Answer = {
    status: number;
    body: any;
    headers: Headers;
};
