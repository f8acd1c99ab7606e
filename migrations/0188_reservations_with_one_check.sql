-- See 0185. reservations_amount stays. The program reads a time that is out of range as missing.
alter table reservations
    drop constraint reservations_status_known,
    drop constraint reservations_has_seats,
    drop constraint reservations_hold_timed,
    drop constraint reservations_times_in_range;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (188, 111, '0.1.0');
