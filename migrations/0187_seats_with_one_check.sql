-- See 0185. seats_owner_named stays.
alter table seats
    drop constraint seats_number,
    drop constraint seats_price,
    drop constraint seats_status_known,
    drop constraint seats_hold_timed;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (187, 111, '0.1.0');
