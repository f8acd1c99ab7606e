-- What the support desk gives back and gives: refunds of single seats, and points as goodwill.

create table seat_refunds (
    reservation_id uuid not null,
    seat integer not null,
    amount bigint not null constraint seat_refunds_amount check (amount >= 0),
    entry_id uuid constraint seat_refunds_entry references ledger_entries (id),
    actor text not null,
    reason text not null,
    refunded_at timestamptz not null,
    constraint seat_refunds_pkey primary key (reservation_id, seat),
    constraint seat_refunds_points_have_an_entry check ((amount > 0) = (entry_id is not null))
);
comment on table seat_refunds is 'Seats that support took off a confirmed reservation. Its row has the remaining seats; a seat is refunded once.';
comment on column seat_refunds.amount is 'What the seat had cost; 0 has no ledger entry.';
create unique index seat_refunds_one_entry on seat_refunds (entry_id) where entry_id is not null;

create table goodwill_grants (
    entry_id uuid constraint goodwill_grants_pkey primary key
        constraint goodwill_grants_entry references ledger_entries (id),
    api_key_id uuid not null,
    user_id uuid not null,
    amount bigint not null constraint goodwill_grants_amount check (amount > 0),
    reason text not null,
    granted_at timestamptz not null
);
comment on table goodwill_grants is 'Points that support gave as goodwill, each with its ledger entry.';
create index goodwill_grants_of_key on goodwill_grants (api_key_id, granted_at);

-- Ids of tickets rise with time, and so lie together; such an index costs a sale nothing. So does one over the dates of reservations.
create index tickets_by_id on tickets using brin (id) with (pages_per_range = 16);
create index reservations_of_performance on reservations using brin (performance_id uuid_bloom_ops)
    with (pages_per_range = 32);

create or replace view payments as
select used.id, used.reservation_id, used.user_id, used.amount,
    case when exists (select from ledger_entries back where back.reverses_id = used.id) then 'refunded'
         -- The refunds of single seats may leave nothing to be reversed.
         when used.amount = (select sum(s.amount) from seat_refunds s where s.reservation_id = used.reservation_id)
             and not exists (select from reservations r where r.id = used.reservation_id and r.status = 'confirmed')
         then 'refunded'
         else 'succeeded' end as status,
    used.id as entry_id, used.created_at as paid_at,
    coalesce((select sum(s.amount) from seat_refunds s where s.reservation_id = used.reservation_id), 0)::bigint as refunded
from ledger_entries used
where used.kind = 'use'
union all
select p.id, p.reservation_id, p.user_id, p.amount, p.status, null, p.paid_at, 0
from payments_without_entry p
where not exists (select from ledger_entries used where used.kind = 'use' and used.reservation_id = p.reservation_id);

insert into schema_compatibility (migration, oldest_level, oldest_release) values (25, 21, '0.1.0');
