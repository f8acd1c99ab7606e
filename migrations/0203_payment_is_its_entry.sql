-- A payment of points is the ledger entry that takes them. A payment that takes none (nothing to pay, or too few points) has a row of
-- its own. The view has both, as the table had.

alter table payments rename to payments_without_entry;
alter table payments_without_entry rename constraint payments_pkey to payments_without_entry_pkey;
alter table payments_without_entry rename constraint payments_one_per_reservation to payments_without_entry_of_reservation;

-- The schema's first version had a row for every payment. Its sagas are not carried over (0201), nor are these rows.
do $$ begin
    if exists (select from payments_without_entry where entry_id is not null) then
        raise exception 'this database has payments of a version before 0.1; they are not carried over, begin with a new database';
    end if;
end $$;
alter table payments_without_entry drop column entry_id;
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

-- The reference to the reversed entry cost every payment a check of nothing. The audit looks for what it kept.
alter table ledger_entries drop constraint ledger_entries_reverses;

comment on table reservations is 'What a buyer sees of a booking: inserted when its seats are held or refused, written by the saga''s steps in the transaction of their effect, and kept when the saga''s history is gone.';
