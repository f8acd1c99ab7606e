-- See 0181.
set local lock_timeout = '500ms';

lock table seats, reservations, tickets in access exclusive mode;
alter table tickets
    drop constraint tickets_seat,
    drop constraint tickets_reservation;
create trigger seats_named after delete on seats
    referencing old table as gone for each statement execute function refuse_while_named();
create trigger reservations_named after delete on reservations
    referencing old table as gone for each statement execute function refuse_while_named();

insert into schema_compatibility (migration, oldest_level, oldest_release) values (184, 111, '0.1.0');
