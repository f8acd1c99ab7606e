-- What buyers own: reservations, points, payments, tickets.

create table reservations (
    id uuid constraint reservations_pkey primary key,
    user_id uuid not null,
    concert_id uuid not null,
    performance_id uuid not null,
    status text not null,
    reason text,
    detail jsonb,
    seats integer[] not null,
    lines jsonb not null default '[]',
    amount bigint not null default 0 constraint reservations_amount check (amount >= 0),
    expires_at timestamptz,
    claimable_at timestamptz,
    cancellation_id uuid,
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 55);
comment on table reservations is 'What a buyer sees of a booking: inserted when its seats are held or refused, written by the saga''s steps in the transaction of their effect, and kept when the saga''s history is gone.';
comment on column reservations.id is 'Also the booking saga''s id and the holder of its seats.';
comment on column reservations.lines is 'The seats with section and price, as they were when held.';
comment on column reservations.detail is 'What a refusal named, for instance the seats lost.';
comment on column reservations.cancellation_id is 'The cancellation saga, set once by compare-and-set from confirmed.';
create index reservations_of_user on reservations (user_id, id desc);
create unique index reservations_one_cancellation on reservations (cancellation_id) where cancellation_id is not null;

create table accounts (
    user_id uuid constraint accounts_pkey primary key,
    balance bigint not null default 0 constraint accounts_never_below_zero check (balance >= 0),
    updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table accounts is 'Points of a user: the sum of the ledger entries, kept beside them under the row''s lock.';

create table ledger_entries (
    id uuid constraint ledger_entries_pkey primary key,
    user_id uuid not null,
    kind text not null,
    amount bigint not null constraint ledger_entries_amount check (amount > 0),
    balance bigint not null,
    reservation_id uuid,
    reverses_id uuid,
    position bigint generated always as identity,
    created_at timestamptz not null
);
comment on table ledger_entries is 'Immutable: every charge, use and refund of points. A refund names the entry it reverses, once.';
comment on column ledger_entries.balance is 'The balance after this entry.';
create index ledger_entries_of_user on ledger_entries (user_id, position desc);
create unique index ledger_entries_one_use on ledger_entries (reservation_id) where kind = 'use';
create unique index ledger_entries_reversed_once on ledger_entries (reverses_id) where reverses_id is not null;

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

-- A payment of points is the ledger entry that takes them. A payment that takes none has a row of its own. The view has both.
create table payments_without_entry (
    id uuid constraint payments_without_entry_pkey primary key,
    reservation_id uuid not null constraint payments_without_entry_of_reservation unique,
    user_id uuid not null,
    amount bigint not null,
    status text not null,
    paid_at timestamptz,
    updated_at timestamptz not null
) with (fillfactor = 70);
comment on table payments_without_entry is 'Payments that take no points: of nothing, and those that failed for too few points. See the view payments.';

create view payments as
select used.id, used.reservation_id, used.user_id, used.amount,
    case when exists (select from ledger_entries back where back.reverses_id = used.id) then 'refunded' else 'succeeded' end as status,
    used.id as entry_id, used.created_at as paid_at
from ledger_entries used
where used.kind = 'use'
union all
select p.id, p.reservation_id, p.user_id, p.amount, p.status, null, p.paid_at
from payments_without_entry p
where not exists (select from ledger_entries used where used.kind = 'use' and used.reservation_id = p.reservation_id);
comment on view payments is 'The payment of each reservation: its ledger entry, or what stands in payments_without_entry.';

-- A reservation gets one ticket for each of its seats, once, so both together are the key; it also finds the tickets of a
-- reservation. No statement looks for a ticket by its id or its code: a code has 119 random bits, and the audit finds one that comes twice.
create table tickets (
    id uuid not null,
    reservation_id uuid not null,
    performance_id uuid not null,
    seat integer not null,
    code text not null,
    status text not null,
    issued_at timestamptz not null,
    voided_at timestamptz,
    constraint tickets_pkey primary key (reservation_id, seat)
);
comment on table tickets is 'One per seat sold. A seat has at most one valid ticket.';
create unique index tickets_one_valid_per_seat on tickets (performance_id, seat) where status = 'valid';

create function buyers_as_read(buyers uuid[], dates uuid[], seats_then bigint[], moment timestamptz, own uuid[])
returns boolean language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(buyer::text, 20111))
    from (select distinct buyer from unnest(buyers) as buyer order by buyer) as ordered;
    return not exists (
        select from unnest(buyers, dates, seats_then) as known (buyer, date, seats_then)
        where known.seats_then <> (
            select coalesce(sum(cardinality(seats)), 0) from reservations
            where user_id = known.buyer and performance_id = known.date and id <> all (own)
              and (status = 'confirmed' or (status = 'held' and claimable_at > moment))));
end $$;
comment on function buyers_as_read is 'Keeps others from holding seats for these buyers until the transaction ends, and says whether each still has as many seats of a date as was read; reservations that are just being written do not count.';

create trigger reservations_named after delete on reservations
    referencing old table as gone for each statement execute function refuse_while_named();
create trigger accounts_named after delete on accounts
    referencing old table as gone for each statement execute function refuse_while_named();
