-- What buyers own: reservations, points, payments, tickets.

create table users (
    id uuid constraint users_pkey primary key,
    name text not null constraint users_name_length check (char_length(name) between 1 and 100),
    created_at timestamptz not null default clock_timestamp()
);
comment on table users is 'Users made in local mode; in production users live with the identity provider, and nothing refers to this table.';

create table reservations (
    id uuid constraint reservations_pkey primary key,
    user_id uuid not null,
    concert_id uuid not null constraint reservations_concert references concerts (id),
    performance_id uuid not null constraint reservations_performance references performances (id),
    status text not null
        constraint reservations_status_known check (status in
            ('pending', 'held', 'confirmed', 'expired', 'cancelled', 'failed')),
    reason text,
    detail jsonb,
    seats integer[] not null constraint reservations_has_seats check (cardinality(seats) > 0),
    lines jsonb not null default '[]',
    amount bigint not null default 0 constraint reservations_amount check (amount >= 0),
    expires_at timestamptz,
    claimable_at timestamptz,
    cancellation_id uuid constraint reservations_one_cancellation unique,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint reservations_hold_timed check (status <> 'held' or (expires_at is not null and claimable_at is not null))
) with (fillfactor = 70);
comment on table reservations is 'What a buyer sees of a booking; written by the saga''s steps in the transaction of their effect, and kept when the saga''s history is gone.';
comment on column reservations.id is 'Also the booking saga''s id and the holder of its seats.';
comment on column reservations.lines is 'The seats with section and price, as they were when held.';
comment on column reservations.detail is 'What a refusal named, for instance the seats lost.';
comment on column reservations.cancellation_id is 'The cancellation saga, set once by compare-and-set from confirmed.';
create index reservations_of_user on reservations (user_id, id desc);

create table accounts (
    user_id uuid constraint accounts_pkey primary key,
    balance bigint not null default 0 constraint accounts_never_below_zero check (balance >= 0),
    updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table accounts is 'Points of a user: the sum of the ledger entries, kept beside them under the row''s lock.';

create table ledger_entries (
    id uuid constraint ledger_entries_pkey primary key,
    user_id uuid not null constraint ledger_entries_account references accounts (user_id),
    kind text not null constraint ledger_entries_kind_known check (kind in ('charge', 'use', 'refund')),
    amount bigint not null constraint ledger_entries_amount check (amount > 0),
    balance bigint not null constraint ledger_entries_balance check (balance >= 0),
    reservation_id uuid,
    reverses_id uuid
        constraint ledger_entries_reversed_once unique
        constraint ledger_entries_reverses references ledger_entries (id),
    position bigint generated always as identity,
    created_at timestamptz not null,
    constraint ledger_entries_refund_names_entry check ((kind = 'refund') = (reverses_id is not null)),
    constraint ledger_entries_use_names_reservation check ((kind = 'charge') = (reservation_id is null))
);
comment on table ledger_entries is 'Immutable: every charge, use and refund of points. A refund names the entry it reverses, once.';
comment on column ledger_entries.balance is 'The balance after this entry.';
create index ledger_entries_of_user on ledger_entries (user_id, position desc);
create unique index ledger_entries_one_use on ledger_entries (reservation_id) where kind = 'use';

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger ledger_entries_immutable before update or delete on ledger_entries
    for each row execute function refuse_change();

create table unannounced_entries (
    entry_id uuid constraint unannounced_entries_pkey primary key
        constraint unannounced_entries_entry references ledger_entries (id),
    created_at timestamptz not null
);
comment on table unannounced_entries is 'Charges whose event JetStream has not acknowledged yet; they have no saga to be their outbox.';

create table payments (
    id uuid constraint payments_pkey primary key,
    reservation_id uuid not null
        constraint payments_one_per_reservation unique
        constraint payments_reservation references reservations (id),
    user_id uuid not null,
    amount bigint not null constraint payments_amount check (amount >= 0),
    status text not null constraint payments_status_known check (status in ('succeeded', 'failed', 'refunded')),
    entry_id uuid constraint payments_entry references ledger_entries (id),
    paid_at timestamptz,
    updated_at timestamptz not null,
    constraint payments_paid_when_taken check ((status = 'failed') = (paid_at is null))
) with (fillfactor = 70);
comment on table payments is 'The payment of a reservation; one of no points has no ledger entry.';

create table tickets (
    id uuid constraint tickets_pkey primary key,
    reservation_id uuid not null constraint tickets_reservation references reservations (id),
    performance_id uuid not null,
    seat integer not null,
    code text not null constraint tickets_code_unique unique,
    status text not null constraint tickets_status_known check (status in ('valid', 'void')),
    issued_at timestamptz not null,
    voided_at timestamptz,
    constraint tickets_seat foreign key (performance_id, seat) references seats (performance_id, number),
    constraint tickets_voided_when_void check ((status = 'void') = (voided_at is not null))
);
comment on table tickets is 'One per seat sold. A seat has at most one valid ticket.';
create index tickets_of_reservation on tickets (reservation_id);
create unique index tickets_one_valid_per_seat on tickets (performance_id, seat) where status = 'valid';
